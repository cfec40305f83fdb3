import hashlib
import importlib
import json
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.export.builder import BUILDERS
from autoprune.export.network import load_network, load_run, network_bytes, save_network
from autoprune.export.patterns import described
from autoprune.structure.edit import Ranking, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task import networks
from autoprune.task.task import Architecture
from tests.language_models import causal_task
from tests.models import PRUNABLE

DIGITS = Architecture("autoprune.task.networks.digits_net", {"width": 8})


class Users(nn.Module):
    """Somebody's own network: grouped convolution, PReLU, tied weights, a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, bias=False)
        self.act = nn.PReLU(12)
        self.one_slope = nn.PReLU()
        self.grouped = nn.Conv2d(12, 8, 3, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.tied1, self.tied2 = nn.Linear(5, 5), nn.Linear(5, 5)
        self.tied2.weight = self.tied1.weight
        self.spare = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.grouped(self.act(self.conv1(x)))).mean(dim=(2, 3))
        return self.tied2(self.tied1(self.one_slope(self.fc(x))))  # type: ignore[no-any-return]


def lived_in(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """The network with weights and statistics that are nobody's defaults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
            else:
                tensor.fill_(7)
    return network.eval()


def randomly_pruned(network: nn.Module, structure: Structure, *, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    ranking: Ranking = {g.name: torch.randperm(g.units, generator=generator) for g in structure.groups}
    kept = [g.levels[int(torch.randint(len(g.levels), (1,), generator=generator))] for g in structure.groups]
    return shrink(network, structure, structure.plan(kept), ranking)  # type: ignore[arg-type]


def difference(a: nn.Module, b: nn.Module, inputs: Tensor) -> float:
    with torch.inference_mode():
        return float((a(inputs) - b(inputs)).abs().max())


def assert_same_network(loaded: nn.Module, saved: nn.Module) -> None:
    """Same weights, bit by bit, and the same attributes of every layer."""
    a, b = loaded.state_dict(), saved.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
    assert str(loaded) == str(saved)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_network(lived_in(networks.digits_net(width=8)), tmp_path / "network", architecture=DIGITS)
    return tmp_path / "network"


@pytest.mark.parametrize("name", PRUNABLE)
def test_random_plans_come_back_exactly(tmp_path: Path, name: str) -> None:
    network = PRUNABLE[name]
    model, inputs = network.model(), network.inputs(3)
    structure = find_structure(model, inputs[:1])
    for seed in range(2):
        small = randomly_pruned(model, structure, seed=seed)
        save_network(small, tmp_path / str(seed), architecture=None)
        loaded = load_network(tmp_path / str(seed), model=network.model(seed=9))
        assert_same_network(loaded, small)
        assert not loaded.training
        assert difference(loaded, small, inputs) == 0


@pytest.mark.parametrize(
    ("builder", "arguments", "shape"),
    [
        (networks.digits_net, {"width": 8}, (1, 1, 8, 8)),
        (networks.resnet20, {"width": 4}, (1, 1, 28, 28)),
        (networks.plain20, {"width": 4}, (1, 1, 28, 28)),
        (networks.mobilenet_v1, {"width_multiplier": 0.125}, (1, 1, 28, 28)),
    ],
)
def test_shipped_networks_are_rebuilt_from_the_files_alone(
    tmp_path: Path, builder: Callable[..., nn.Module], arguments: dict[str, int | float | str], shape: tuple[int, ...]
) -> None:
    model = lived_in(builder(**arguments))
    small = randomly_pruned(model, find_structure(model, torch.zeros(shape)), seed=0)
    save_network(small, tmp_path, architecture=Architecture(f"{builder.__module__}.{builder.__name__}", arguments))
    assert_same_network(load_network(tmp_path), small)
    assert difference(load_network(tmp_path), small, torch.randn(3, *shape[1:])) == 0


def test_the_size_is_known_before_saving(saved: Path) -> None:
    assert network_bytes(load_network(saved)) == (saved / "network.safetensors").stat().st_size


def test_a_users_network_comes_back_through_its_dense_self(tmp_path: Path) -> None:
    model = lived_in(Users())
    structure = find_structure(model, torch.zeros(1, 3, 8, 8))
    small, dense = randomly_pruned(model, structure, seed=1), Users()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    save_network(small, tmp_path, architecture=None)
    loaded = load_network(tmp_path, model=dense)
    assert_same_network(loaded, small)
    assert difference(loaded, small, torch.randn(2, 3, 8, 8)) == 0
    assert loaded.get_parameter("tied1.weight") is loaded.get_parameter("tied2.weight")
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_precision_comes_back(tmp_path: Path) -> None:
    half = lived_in(networks.digits_net(width=8)).to(torch.bfloat16)
    save_network(half, tmp_path, architecture=DIGITS)
    assert_same_network(load_network(tmp_path), half)


def test_loaded_networks_can_be_trained(saved: Path) -> None:
    network = load_network(saved).train()
    network(torch.randn(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_saving_again_replaces_what_was_there(saved: Path) -> None:
    other = lived_in(networks.digits_net(width=8), seed=5)
    save_network(other, saved, architecture=DIGITS)
    assert_same_network(load_network(saved), other)
    assert sorted(p.name for p in saved.iterdir()) == ["network.json", "network.safetensors"]


def test_no_file_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_network(networks.digits_net(), tmp_path, architecture=None)
    assert list(tmp_path.iterdir()) == []


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((folder / "network.json").read_text())
    change(record)
    (folder / "network.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "builder",
    [
        "os.system",
        "builtins.exec",
        "my_package.my_network",
        "autoprune_evil.networks.resnet20",
        "autoprune.task.networks.torch",  # not a function
        "autoprune.task.networks.DigitsNet",  # a class
        "autoprune.export.network.Path",  # somebody else's
        "autoprune.task.networks.nothing",
        "autoprune.nowhere.resnet20",
        "autoprune.",
        "autoprune.task.fashion_mnist.write_subset",  # ours, but it writes files
        "autoprune.export.network.load_network",  # it builds a network, of any folder
        "autoprune.agent.trained_policy.build_network",
        ["autoprune.task.networks.digits_net"],
        None,
    ],
)
def test_foreign_builders_are_refused_and_never_called(saved: Path, builder: Any) -> None:
    edit(saved, lambda record: record.update(architecture={"builder": builder, "arguments": {}}))
    with pytest.raises(ValueError, match=r"network\.json.*model="):
        load_network(saved)
    load_network(saved, model=networks.digits_net(width=8))


def test_a_network_without_a_builder_asks_for_the_dense_one(tmp_path: Path) -> None:
    save_network(networks.digits_net(), tmp_path, architecture=None)
    with pytest.raises(ValueError, match=r"how to build.*model="):
        load_network(tmp_path)


@pytest.mark.parametrize("arguments", [{"colour": 3}, {"width": "wide"}, {"width": -1}, [8], None])
def test_arguments_that_build_nothing_are_refused(saved: Path, arguments: Any) -> None:
    edit(saved, lambda record: record["architecture"].update(arguments=arguments))
    with pytest.raises(ValueError, match=r"network\.json.*digits_net"):
        load_network(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    path = saved / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"network\.safetensors has .* truncated"):
        load_network(saved)


def test_one_altered_byte_is_noticed(saved: Path) -> None:
    path = saved / "network.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"network\.safetensors.*altered"):
        load_network(saved)


def replace_weights(folder: Path, content: bytes) -> None:
    """Other weights, with a record that vouches for them."""
    (folder / "network.safetensors").write_bytes(content)
    sealed = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda record: record.update(weights=sealed))


def test_weights_that_are_no_safetensors_are_refused(saved: Path) -> None:
    replace_weights(saved, b"\x80\x04pickle")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_network(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    replace_weights(saved, safetensors.torch.save(nn.Linear(2, 2).state_dict()))
    with pytest.raises(ValueError, match=r"block\.bn1\.bias.*others"):
        load_network(saved)


def test_weights_of_another_width_are_refused(saved: Path) -> None:
    replace_weights(saved, safetensors.torch.save(networks.digits_net(width=4).state_dict()))
    with pytest.raises(ValueError, match=r"bn1\.bias.*\[4\].*\[8\]"):
        load_network(saved)


@pytest.mark.parametrize("content", ["", "{", '{"schema": 1', "[]", "null", "{}"])
def test_a_broken_record_is_refused(saved: Path, content: str) -> None:
    (saved / "network.json").write_text(content)
    with pytest.raises(ValueError, match=r"network\.json"):
        load_network(saved)


def test_another_schema_is_refused(saved: Path) -> None:
    edit(saved, lambda record: record.update(schema=9))
    with pytest.raises(ValueError, match=r"schema 9.*reads schemas 1 to 3"):
        load_network(saved)


@pytest.mark.parametrize("missing", ["architecture", "layers", "weights"])
def test_a_record_without_one_of_its_parts_is_refused(saved: Path, missing: str) -> None:
    edit(saved, lambda record: record.pop(missing))
    with pytest.raises(ValueError, match=rf"network\.json.*{missing}"):
        load_network(saved)


@pytest.mark.parametrize("width", [0, -1, 9, 1.5, "8", True, None])
def test_senseless_widths_are_refused(saved: Path, width: Any) -> None:
    edit(saved, lambda record: record["layers"]["conv1"].update(out_channels=width))
    with pytest.raises(ValueError, match=r"network\.json.*out_channels.*'conv1'.*\[1, 8\]"):
        load_network(saved)


def test_layers_of_another_network_are_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"block\.bn1.*others"):
        load_network(saved, model=nn.Sequential(nn.Linear(2, 2)))


def test_a_run_and_its_network_folder_both_load(saved: Path) -> None:
    assert_same_network(load_run(saved.parent), load_run(saved))
    assert_same_network(load_run(str(saved.parent)), load_run(saved, model=networks.digits_net(width=8)))


def test_every_builder_is_there() -> None:
    for name in BUILDERS:
        module, _, function = name.rpartition(".")
        builder = getattr(importlib.import_module(module), function)
        hints = typing.get_type_hints(builder)
        assert hints.pop("return") is nn.Module
        values = {type(choice) for hint in hints.values() for choice in typing.get_args(hint)}
        values |= {hint for hint in hints.values() if not typing.get_args(hint)}
        assert values <= {int, float, str}, "JSON values that lead nowhere"


def test_what_holds_no_network_says_what_it_is(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()

    def refused(path: Path, message: str) -> None:
        with pytest.raises(FileNotFoundError, match=rf"holds no pruned network: .*{message}"):
            load_run(path)

    refused(tmp_path / "nowhere", "no such folder")
    refused(saved / "network.json", "it is a file; give the folder")
    refused(run, "is not a run's folder")
    (run / "run.json").write_text("{}")
    refused(run, "is not finished; `autoprune search resume=")
    (run / "result.json").write_text("{}")
    refused(run, r"ended before it was saved; result\.json says why")
    sweep = tmp_path / "sweep"
    for number in range(2):
        shutil.copytree(saved, sweep / str(number) / "network")
    refused(sweep, "a folder of 2 runs; give one of them, such as .*sweep/0")
    (run / "config.json").write_text("{}")
    refused(run, "a Hugging Face model")
    (run / "policy.json").write_text("{}")
    refused(run, r"a policy; autoprune\.Policy\.load")


@pytest.mark.parametrize("model", [Users, "resnet20", 7])
def test_a_model_that_is_no_network_is_refused(saved: Path, model: Any) -> None:
    with pytest.raises(TypeError, match=r"model.*nn\.Module"):
        load_network(saved, model=model)


@pytest.mark.parametrize(
    "change", [{"skipped": 3}, {"patterns": {}}, {"layers": []}, {"layers": {"conv1": 4}}, {"weights": {"bytes": 1}}]
)
def test_altered_parts_of_a_record_are_refused(saved: Path, change: dict[str, Any]) -> None:
    edit(saved, lambda record: record.update(change))
    with pytest.raises(ValueError, match=rf"network\.json is altered.*{next(iter(change))}"):
        load_network(saved)


@pytest.mark.parametrize("missing", ["network.json", "network.safetensors"])
def test_half_a_network_is_refused(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} does not exist"):
        load_run(saved.parent)


@pytest.fixture
def narrowed(tmp_path: Path) -> Path:
    """A saved network whose attentions see fewer blocks of keys."""
    task = causal_task("llama")
    structure = find_structure(task.model, task.example_input, prune=("keys:4",))
    small = shrink(task.model, structure, structure.plan(np.array([4, 2, 1])), {})
    save_network(small, tmp_path, architecture=task.architecture)
    return tmp_path


def test_key_blocks_are_saved_and_loaded(narrowed: Path) -> None:
    record = json.loads((narrowed / "network.json").read_text())
    assert record["schema"] == 2, "readers that do not know patterns refuse it"
    assert [(entry["module"], entry["seed"], entry["kept"]) for entry in record["patterns"]] == [
        ("model.layers.1.self_attn", 1, 2),
        ("model.layers.2.self_attn", 2, 1),
    ]
    assert described(load_network(narrowed)) == record["patterns"]


def test_networks_without_key_blocks_are_written_as_before(saved: Path) -> None:
    record = json.loads((saved / "network.json").read_text())
    assert (record["schema"], "patterns" in record) == (1, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": "model.layers.9.self_attn"}, "needs a module that is there"),
        ({"module": "model.layers.1.mlp"}, "LlamaMLP is no attention module"),
        ({"seed": -1}, "a seed of at least 0"),
        ({"kept": 5}, "keeps 1 to 4 key blocks, got 5"),
        ({"kept": "2"}, r"a pattern of key blocks is .*kept \(int\)"),
        ({"kept": True}, "a pattern of key blocks is"),
        ({"tokens": 10**9}, "more than the 32 positions of the network"),
        ({"block": 0}, "must be at least 1"),
        ({"causal": False}, "is causal, and the mask shows it the future"),
        ({"colour": "red"}, "a pattern of key blocks is"),
    ],
)
def test_altered_key_blocks_are_refused(narrowed: Path, changes: dict[str, Any], message: str) -> None:
    edit(narrowed, lambda record: record["patterns"][0].update(changes))
    with pytest.raises(ValueError, match=rf"(?s)network\.json does not fit a .*{message}"):
        load_network(narrowed)
