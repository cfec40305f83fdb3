"""Networks as .apz files, from Python and by `autoprune export`."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune.cli.export import export
from autoprune.export.apz import bits_of, encode_state, load_apz, save_apz, state_of, tensor_of
from autoprune.export.network import save_network
from autoprune.export.shape_record import shape_record
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.networks import digits_net
from autoprune.task.shipped import SHIPPED
from autoprune.task.task import Architecture
from tests.sampling import covering

DIGITS = Architecture("autoprune.task.networks.digits_net")


def sparse(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Most weights are zero, and the others have few values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            kept = torch.rand(parameter.shape, generator=generator) < 0.2
            parameter.copy_(torch.randint(-4, 5, parameter.shape, generator=generator) * 0.1 * kept)
    return network.eval()


def same(network: nn.Module, other: nn.Module) -> bool:
    states = network.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(a, states[1][name]) for name, a in states[0].items()
    )


def test_a_pruned_network_comes_back_bit_for_bit(tmp_path: Path) -> None:
    dense = digits_net()
    structure = find_structure(dense, torch.zeros(1, 1, 8, 8))
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    half = structure.plan([group.levels[len(group.levels) // 2] for group in structure.groups])  # type: ignore[arg-type]
    small = sparse(shrink(dense, structure, half, ranking))
    size = save_apz(small, tmp_path / "small.apz", architecture=DIGITS)
    assert size == (tmp_path / "small.apz").stat().st_size
    assert same(autoprune.load(tmp_path / "small.apz"), small)
    assert same(autoprune.load(tmp_path / "small.apz", model=dense), small)


@pytest.mark.parametrize("name", covering(list(SHIPPED), [name for name in SHIPPED if name.startswith("table")]))
def test_a_shipped_network_comes_back(name: str, tmp_path: Path) -> None:
    task = SHIPPED[name]()
    save_apz(task.model, tmp_path / "network.apz", architecture=task.architecture)
    assert same(load_apz(tmp_path / "network.apz", model=None if task.architecture else task.model), task.model)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]
)
def test_tensors_of_any_dtype_become_patterns_and_tensors_again(dtype: torch.dtype) -> None:
    for tensor in (torch.tensor(1).to(dtype), torch.arange(12).reshape(3, 4).t().to(dtype), torch.empty(0).to(dtype)):
        again = tensor_of(bits_of(tensor))
        assert again.dtype == dtype
        assert again.shape == tensor.shape
        assert torch.equal(again, tensor)
    with pytest.raises(ValueError, match="complex64 cannot be written"):
        bits_of(torch.zeros(2, dtype=torch.complex64))


def test_the_command_writes_a_runs_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = sparse(digits_net())
    save_network(network, tmp_path / "network", architecture=DIGITS)
    export([str(tmp_path), "format=apz"])
    told = capsys.readouterr().out
    path = tmp_path / "network" / "network.apz"
    assert f"{path}: {path.stat().st_size:,} bytes" in told
    assert path.stat().st_size < 0.2 * (tmp_path / "network" / "network.safetensors").stat().st_size
    assert same(autoprune.load(path), network)
    export([str(tmp_path), "format=apz", f"out={tmp_path / 'elsewhere.apz'}"])
    assert (tmp_path / "elsewhere.apz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "export needs one run"),
        (["RUN"], "export needs a format"),
        (["RUN", "format=zip"], "format must be 'apz'|got 'zip'|zip"),
        (["RUN", "format=apz", "out=x.bin"], "must end in .apz"),
        (["nowhere", "format=apz"], "nowhere holds no pruned network"),
    ],
)
def test_the_command_says_what_it_needs(arguments: list[str], message: str, tmp_path: Path) -> None:
    save_network(digits_net(), tmp_path, architecture=DIGITS)
    with pytest.raises(SystemExit, match=message):
        export([str(tmp_path) if argument == "RUN" else argument for argument in arguments])


def test_files_of_other_networks_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "a.apz", digits_net()
    save_apz(network, path, architecture=None)
    with pytest.raises(ValueError, match="does not say how to build its network"):
        load_apz(path)
    with pytest.raises(ValueError, match=r"a\.apz"):
        load_apz(path, model=nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(TypeError, match="the class Linear"):
        load_apz(path, model=nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        load_apz(tmp_path / "nowhere.apz")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.apz cannot be read: it has \d+ bytes, and its header says"):
        load_apz(path, model=network)
    path.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"does not begin as an \.apz file does"):
        autoprune.load(path)


def test_a_tensor_larger_than_the_networks_is_never_decoded(tmp_path: Path) -> None:
    network = digits_net()
    name, weight = next(iter(state_of(network).items()))
    state = state_of(network) | {name: torch.zeros(4096, *weight.shape[1:])}
    path = tmp_path / "large.apz"
    path.write_bytes(encode_state(shape_record(network, DIGITS), state))
    with pytest.raises(ValueError, match=rf"{name}.* has shape \[4096, .*but its layer needs"):
        load_apz(path)
