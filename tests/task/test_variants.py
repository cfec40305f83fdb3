"""Networks of many shapes: equal ones for equal numbers, of their family, trained once."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from autoprune.structure.graph import find_structure
from autoprune.task.variants import Family, variant, variant_network

FAMILIES = get_args(Family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("images", ["digits", "fashion"])
def test_equal_numbers_give_equal_networks(family: str, images: str) -> None:
    state = torch.get_rng_state()
    once, again, other = (variant_network(family=family, number=n, images=images) for n in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state), "the caller's randomness is left alone"
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))
    assert [p.shape for p in once.parameters()] != [p.shape for p in other.parameters()]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_can_be_pruned(family: str) -> None:
    for number in range(4):
        network = variant_network(family=family, number=number, images="digits").eval()
        structure = find_structure(network, torch.zeros(1, 1, 8, 8))
        assert 1 <= len(structure.groups) <= 20
        assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_families_are_what_they_are_called() -> None:
    layers = {f: list(variant_network(family=f, number=0, images="fashion").modules()) for f in FAMILIES}
    convolutions = {f: [m for m in found if isinstance(m, nn.Conv2d)] for f, found in layers.items()}
    assert not convolutions["dense"]
    assert any(conv.groups > 1 for conv in convolutions["depthwise"])
    assert all(conv.groups == 1 for f in ("plain", "residual") for conv in convolutions[f])
    streams = find_structure(
        variant_network(family="residual", number=0, images="digits").eval(), torch.zeros(1, 1, 8, 8)
    )
    assert any(sum(member.axis == "out" for member in group.members) > 2 for group in streams.groups)


def test_it_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    task = variant(family="dense", number=0, images="digits")
    (stored,) = (tmp_path / "variants").iterdir()
    made = stored.stat().st_mtime_ns
    again = variant(family="dense", number=0, images="digits")
    assert stored.stat().st_mtime_ns == made
    for one, other in zip(task.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with torch.inference_mode():
        right = task.model(task.data.test.inputs).argmax(dim=1) == task.data.test.targets
    assert right.float().mean() > 0.85


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"family": "recurrent"}, r"family.*residual.*'recurrent'"),
        ({"images": "cifar"}, r"images.*fashion.*'cifar'"),
        ({"number": -1}, "number must be at least 0, got -1"),
    ],
)
def test_what_there_is_not_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variant(**{"family": "plain", "number": 0, "images": "digits", **wrong})  # type: ignore[arg-type]
