from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.export.builder import BUILDERS
from autoprune.task import networks
from autoprune.task.fashion_mnist import CALIBRATION, SEARCH, SUBSET, TRAIN_IMAGES, fashion_full, role_ids
from autoprune.task.shipped import SHIPPED, digits, shipped_task
from autoprune.task.task import accuracy, first_outputs
from autoprune.task.weights import load_weights


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_trained(name: str) -> None:
    task = shipped_task(name)
    assert task.name == name
    assert task.budget is not None
    assert task.architecture is not None
    assert task.architecture.builder in BUILDERS
    search = task.data.search[:300]
    with torch.inference_mode():
        outputs = first_outputs(task.model(search.inputs))
    assert accuracy(outputs, search.targets) > 0.88


def test_the_shipped_images_are_a_subset_of_their_roles() -> None:
    data = shipped_task("fashion_plain20").data
    whole = role_ids(70_000)
    for name, role in data.items():
        assert len(role) == SUBSET[name]
        assert {int(i.partition(":")[2]) for i in role.ids} <= set(whole[name].tolist())
        assert role.inputs.shape[1:] == (1, 28, 28)
        assert set(role.targets.tolist()) == set(range(10))


def test_the_test_role_comes_from_the_test_file() -> None:
    roles = role_ids(70_000)
    sizes = {name: len(rows) for name, rows in roles.items()}
    assert sizes == {
        "train": TRAIN_IMAGES - CALIBRATION - SEARCH, "calibration": CALIBRATION, "search": SEARCH, "test": 10_000,
    }  # fmt: skip
    assert roles["test"].min() == TRAIN_IMAGES
    assert len(set().union(*(rows.tolist() for rows in roles.values()))) == 70_000


def test_digits_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("autoprune.task.shipped._train_digits", _write_ones)
    digits()
    weights = tmp_path / "digits_net.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]
    monkeypatch.setattr("autoprune.task.shipped._train_digits", None)  # would fail if it were called again
    assert (digits().model.get_parameter("conv1.weight") == 1).all()


def test_unknown_tasks_are_named_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"'mnist'.*\['digits'.*or pass an autoprune.Task"):
        shipped_task("mnist")


@pytest.mark.parametrize("damage", [b"", b"not weights", None])
def test_damaged_weights_are_an_error(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "plain20.safetensors"
    good = Path(networks.__file__).parent.parent / "zoo" / path.name
    path.write_bytes(good.read_bytes()[:-1000] if damage is None else damage)
    with pytest.raises(ValueError, match=f"{path} is damaged or not this network's: .*; delete it or restore it"):
        load_weights(networks.plain20(), path)


def test_another_networks_weights_are_an_error() -> None:
    path = Path(networks.__file__).parent.parent / "zoo" / "plain20.safetensors"
    with pytest.raises(ValueError, match="not this network's"):
        load_weights(networks.digits_net(), path)


def test_a_folder_without_the_images_says_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"missing: \['train-labels-idx1-ubyte.gz', 't10k-images"):
        fashion_full(folder=str(tmp_path))


def _write_ones(model: nn.Module, _: object) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
