"""What a configuration describes is made, and what it describes wrongly is said before anything is paid for."""

from pathlib import Path
from typing import Any

import pytest

from autoprune.cli.parts import instantiate_part

DEVICE = {
    "_target_": "autoprune.device.analytical.AnalyticalDevice",
    "name": "mine",
    "peak_gmacs": {"fp32": 10},
    "precision": "fp32",
    "memory_gb_s": 5,
    "caches": {512: 20},
    "kernel_us": 1,
    "granularity": 4,
}
RECOVER = {"_target_": "autoprune.recover.fine_tune.fine_tune", "_partial_": True, "steps": 3}


def test_what_is_described_is_made() -> None:
    assert instantiate_part({"device": DEVICE}, "device").granularity == 4
    assert instantiate_part({"recover": RECOVER}, "recover").keywords == {"steps": 3}
    assert instantiate_part({"paths": {"a": {"_target_": "pathlib.Path", "_args_": ["x"]}}}, "paths") == {
        "a": Path("x")
    }


@pytest.mark.parametrize("settings", [{}, {"device": None}])
def test_nothing_described_is_none(settings: dict[str, Any]) -> None:
    assert instantiate_part(settings, "device") is None


@pytest.mark.parametrize("key", sorted(set(DEVICE) - {"_target_"}))
def test_a_missing_key_is_named_with_the_way_out(key: str) -> None:
    left = {name: value for name, value in DEVICE.items() if name != key}
    with pytest.raises(ValueError, match=rf"device lacks {key}, .* device= chooses, .*: \+device\.{key}=VALUE"):
        instantiate_part({"device": left}, "device")


@pytest.mark.parametrize("part", [DEVICE, RECOVER], ids=["object", "partial"])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_key_that_nothing_has_is_named_however_deep_it_stands(part: dict[str, Any], depth: int) -> None:
    node = {**part, "speed": 3}
    settings = {"part": node if depth == 0 else {"first": node}}
    with pytest.raises(ValueError, match=rf"part{'.first' * depth} has the key 'speed', .* it knows \["):
        instantiate_part(settings, "part")
