from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cli import conf_dir
from autoprune.cost.observed import NetworkCosts
from autoprune.device.agreement import agreement
from autoprune.device.analytical import AnalyticalDevice
from autoprune.device.device import preferred_levels
from autoprune.device.profiler import random_plans
from autoprune.device.roofline import Factors
from tests.composition import composed
from tests.models import PRUNABLE, random_plan
from tests.tasks import tiny_task

FIGURES: dict[str, Any] = {
    "name": "test", "peak_gmacs": {"fp32": 10.0, "int8": 40.0}, "precision": "fp32", "memory_gb_s": 8.0,
    "caches": {256: 64.0, 4096: 32.0}, "kernel_us": 2.0, "granularity": 4,
}  # fmt: skip
SHIPPED = sorted(path.stem for path in (conf_dir() / "device").glob("*.yaml") if not path.stem.startswith("this_"))


def device(**changes: Any) -> AnalyticalDevice:
    return AnalyticalDevice(**FIGURES | changes)


def test_the_devices_that_are_promised_are_shipped() -> None:
    gpus, cpus = {"edge_gpu", "datacentre_gpu"}, {"phone_cpu", "laptop_cpu", "server_cpu"}
    assert gpus | cpus | {"raspberry_pi", "microcontroller"} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_device_makes_costs(name: str) -> None:
    shipped = instantiate(composed(f"device={name}")["device"], _convert_="all")
    task = tiny_task("residual")
    structure = PRUNABLE["residual"].structure()
    costs = shipped.costs(task, structure)
    assert {cost: model.unit for cost, model in costs.items()} == {"latency": "ms", "energy": "mJ"}
    for model in costs.values():
        assert 0 < model(structure.floor) < model(structure.units) < 1000
    assert shipped.latencies(task, {"dense": task.model}) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_has_a_source_or_is_called_a_guess(name: str) -> None:
    lines = (conf_dir() / "device" / f"{name}.yaml").read_text().splitlines()
    for line in lines:
        key = line.partition(":")[0]
        if key in ("peak_gmacs", "memory_gb_s", "kernel_us", "granularity", "sram_kib", "pj_per_mac", "pj_per_byte"):
            assert "#" in line, line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"peak_gmacs": {}}, r"device.peak_gmacs.*'test'.*'fp32'.*\[\]"),
        ({"peak_gmacs": {"fp31": 1.0}}, r"peak_gmacs.*got \['fp31'\]"),
        ({"precision": "bf16"}, r"device.precision.*'test'.*'bf16'.*peak_gmacs"),
        ({"memory_gb_s": None}, r"device.memory_gb_s.*None"),
        ({"caches": {256: 1.0, 4096: 2.0}}, "a larger cache is faster than a smaller one"),
    ],
)
def test_impossible_figures_name_the_key_and_the_rule(changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        device(**changes)


@pytest.mark.parametrize("missing", ["peak_gmacs", "precision", "memory_gb_s", "caches", "kernel_us", "granularity"])
def test_missing_figures_are_named(missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        AnalyticalDevice(**{key: value for key, value in FIGURES.items() if key != missing})


@pytest.mark.parametrize("value", [-1.0, float("inf"), "much"])
def test_factors_are_checked(value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"device\.factors\.memory must be (in \[0, inf\)|a number), got"):
        Factors(memory=value)


def test_one_layer_is_known_by_hand() -> None:
    """`plain`: 3 → 8 channels of 3×3 at 8×8, then 8 → 10 at 4×4, then 10 → 5."""
    structure, costs = PRUNABLE["plain"].structure(), PRUNABLE["plain"].costs()
    slow = {"memory_gb_s": 1e6, "caches": {}, "kernel_us": 0.0}  # arithmetic alone
    macs = [3 * 8 * 9 * 64, 8 * 12 * 9 * 16, 12 * 8 * 1]  # blocks of 4: 10 → 12, 5 → 8
    found = device(**slow).latency(costs)(structure.units)
    unaligned = 10 % 4 > 0
    assert unaligned
    assert found == pytest.approx(1e3 * sum(macs) / 1e10)
    bound = device(memory_gb_s=1e-3, caches={}, kernel_us=0.0).latency(costs)(structure.units)
    moved = [3 * 64 + 8 * 64 + 3 * 8 * 9, 8 * 16 + 10 * 16 + 8 * 10 * 9, 10 + 5 + 50]
    assert bound == pytest.approx(1e3 * 4 * sum(moved) / 1e6)
    idle = device(**slow | {"kernel_us": 7.0}).latency(costs)(structure.units)
    assert idle - found == pytest.approx(3 * 7e-3)


def test_what_fits_into_a_cache_is_as_fast_as_the_cache() -> None:
    structure, costs = PRUNABLE["plain"].structure(), PRUNABLE["plain"].costs()
    small = {"peak_gmacs": {"fp32": 1e6}, "kernel_us": 0.0, "memory_gb_s": 0.001}
    without = device(**small, caches={}).latency(costs)(structure.units)
    cached = device(**small, caches={64: 0.1}).latency(costs)(structure.units)
    assert cached == pytest.approx(without / 100)


@given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("name", ["residual", "separable", "grouped", "dense"])
def test_along_is_what_the_plans_cost(name: str, seed: int) -> None:
    structure, latency = PRUNABLE[name].structure(), device().latency(PRUNABLE[name].costs())
    plans = np.array([random_plan(structure, seed=seed + i).kept for i in range(2)])
    for group, each in enumerate(structure.groups):
        levels = np.array(each.levels)
        changed = np.repeat(plans[:, None], len(levels), axis=1)
        changed[..., group] = levels
        assert np.allclose(latency.along(plans, group, levels), latency(changed))


def test_the_granularity_is_what_is_preferred() -> None:
    structure = PRUNABLE["residual"].structure()
    compute_bound = device(granularity=4, memory_gb_s=1e6, caches={}, kernel_us=0.0).latency(
        PRUNABLE["residual"].costs()
    )
    assert [k for k in preferred_levels(compute_bound, structure, structure.groups[0]) if k >= 4] == [4, 8]


def test_factors_that_made_the_measurements_are_fitted() -> None:
    structure, costs = PRUNABLE["separable"].structure(), PRUNABLE["separable"].costs()
    true = device(factors=Factors(compute=3.0, unaligned=1.5, depthwise=6.0, memory=2.0, kernel=1.3))
    plans, others = random_plans(structure, 24, seed=0), random_plans(structure, 24, seed=1)
    fitted = device().calibrated(costs, plans, true.latency(costs)(plans))
    before = agreement(device().latency(costs)(others), true.latency(costs)(others))
    after = agreement(fitted.latency(costs)(others), true.latency(costs)(others))
    assert after.error < 0.02 < before.error
    with pytest.raises(ValueError, match="at least 6 measured plans"):
        device().calibrated(costs, plans[:5], np.ones(5))


def test_activations_that_do_not_fit_are_an_error() -> None:
    task, structure = tiny_task("residual"), PRUNABLE["residual"].structure()
    with pytest.raises(ValueError, match=r"even the smallest plan of 'residual' needs \d+ KiB.*device.sram_kib"):
        device(sram_kib=0.5).costs(task, structure)
    assert "energy" not in device().costs(task, structure)


def test_other_units_than_channels_are_refused_with_another_way() -> None:
    network, structure = PRUNABLE["plain"], PRUNABLE["plain"].structure()
    heads = replace(structure, groups=tuple(replace(group, granularity="head") for group in structure.groups))
    with pytest.raises(ValueError, match=r"\['head'\]"):
        device().latency(NetworkCosts(network.model(), heads, network.inputs()))
