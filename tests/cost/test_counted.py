import numpy as np
import pytest

from autoprune.cost.counted import ALWAYS, CostSettings, Countable
from autoprune.structure.groups import Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.task import Task, plain_forward
from tests.cost.stairs import TableCost
from tests.language_models import TINY
from tests.models import PRUNABLE

NETWORK = PRUNABLE["residual"]


def countable(**settings: object) -> Countable:
    return Countable(
        NETWORK.model(), NETWORK.structure(), NETWORK.inputs(), forward=plain_forward,
        settings=CostSettings(**settings),  # type: ignore[arg-type]
    )  # fmt: skip


def of_task(task: Task, structure: Structure, **settings: object) -> Countable:
    known = CostSettings(**settings)  # type: ignore[arg-type]
    return Countable(task.model, structure, task.example_input, forward=task.forward, settings=known)


def test_every_cost_goes_by_its_name_and_records_hold_what_is_asked_for() -> None:
    costs = countable(pj_per_mac=1.0, pj_per_byte=10.0)
    assert list(costs.recorded()) == list(ALWAYS)
    for name in set(costs) - {"kv_cache"}:
        assert costs[name].name == name
        assert costs[name] is costs[name]
        assert costs[name](NETWORK.structure().units) > costs[name](NETWORK.structure().floor)
    assert {"peak_memory", "energy", "weight_bytes"} <= costs.recorded().keys()
    assert list(countable(report=["peak_memory"]).recorded()) == [*ALWAYS, "peak_memory"]
    with pytest.raises(ValueError, match=r"costs.report.*\['watts'\].*\['macs'"):
        countable(report=["watts"]).recorded()


def test_a_precision_is_of_weights_or_activations() -> None:
    units = NETWORK.structure().units
    at = {bits: countable(weight_bits=bits, activation_bits=bits) for bits in (8, 32)}
    assert at[32]["weight_bytes"](units) == at[32]["bytes"](units)
    assert at[32]["peak_memory"](units) == 4 * at[8]["peak_memory"](units)
    matrices = 3 * 8 * 9 + 8 * 6 * 9 + 6 * 8 * 9 + 8 * 5
    assert at[32]["weight_bytes"](units) - at[8]["weight_bytes"](units) == 3 * matrices
    with pytest.raises(ValueError, match=r"costs\.weight_bits must be 8, 16 or 32, got 4"):
        CostSettings(weight_bits=4)


def test_costs_of_another_origin_stand_beside_these() -> None:
    latency = TableCost("latency", np.ones((9, 7)))
    costs = Countable(
        NETWORK.model(), NETWORK.structure(), NETWORK.inputs(), forward=plain_forward, settings=CostSettings(),
        others={"latency": latency},
    )  # fmt: skip
    assert costs["latency"] is latency
    assert "latency" in costs.recorded()
    assert len(costs) == len(list(costs)) == 10


def test_what_a_network_has_not_is_said() -> None:
    with pytest.raises(ValueError, match=r"MAC.*costs.pj_per_mac.*costs.pj_per"):
        countable()["energy"]
    with pytest.raises(ValueError, match="only decoders keep keys and values"):
        countable()["kv_cache"]
    with pytest.raises(KeyError):
        countable()["watts"]
    task = TINY["llama"]()
    structure = transformer_structure(task.model, task.example_input, prune=("heads",))
    with pytest.raises(ValueError, match="peak_memory"):
        of_task(task, structure)["peak_memory"]
    cache = [of_task(task, structure, context=context)["kv_cache"](structure.units) for context in (None, 160)]
    assert cache[1] == 10 * cache[0]
