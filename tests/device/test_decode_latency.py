"""What a token takes: the sum of a block's measured parts, held to a formula of the network that is really smaller."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from autoprune import Problem, ProblemSpec
from autoprune.device import decode_latency as module
from autoprune.device.decode_latency import DecodeLatency, decode_latency, measured_sizes
from autoprune.machine_cache import MeasurementCache
from autoprune.problem.spec import StructureSettings
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.structure.stock_network import block_sizes
from autoprune.structure.uniform_groups import merged
from tests.language_models import TINY
from tests.models import random_ranking

NOTHING = MeasurementCache(None)


def formula(network: Any, **_: Any) -> float:
    """Seconds that are affine in what each sublayer keeps, a part for each block and one for the vocabulary."""
    taken = 0.1 * network.lm_head.out_features
    for size in block_sizes(network):
        taken += 3
        taken += (2 + 3 * size.key_heads * size.queries) * (size.key_heads > 0) + (5 + size.neurons) * (
            size.neurons > 0
        )
    return float(1e-3 * taken)


def measured_by(formula: Any, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    timed: list[nn.Module] = []

    def seconds(network: nn.Module, **others: Any) -> float:
        timed.append(network)
        return float(formula(network, **others))

    monkeypatch.setattr(module, "token_seconds", seconds)
    return timed


def plans(structure: Structure, count: int) -> Any:
    rng = np.random.default_rng(0)
    return np.array([[rng.choice(group.levels) for group in structure.groups] for _ in range(count)])


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("llama", ("heads", "neurons")),
        ("llama", ("queries", "neurons", "attention", "ffn")),
        ("qwen2", ("attention", "ffn")),
        ("gemma2", ("blocks", "heads", "neurons")),
        ("gpt2", ("heads", "attention", "neurons")),
        ("starcoder2", ("blocks",)),
    ],
)
def test_it_is_what_the_smaller_network_takes(
    family: str, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TINY[family]()
    structure = find_structure(task.model, task.example_input, prune=kinds)
    timed = measured_by(formula, monkeypatch)
    cost = decode_latency(task.model, structure, context=4, cache=NOTHING)
    assert len(timed) > 3
    for kept in plans(structure, 12):
        smaller = shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=0))
        assert float(cost(kept)) == pytest.approx(1e3 * formula(smaller), rel=1e-6)
    kept = plans(structure, 3)
    for group in range(len(structure.groups)):
        levels = np.array(structure.groups[group].levels)
        assert np.allclose(
            cost.along(kept, group, levels)[:, -1], cost(np.where(np.arange(kept.shape[1]) == group, levels[-1], kept))
        )
        assert (np.diff(cost.along(kept, group, levels)) >= 0).all()


def test_one_level_for_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_by(formula, monkeypatch)
    task = TINY["llama"]()
    structure = merged(find_structure(task.model, task.example_input, prune=("heads", "neurons")), ("neurons",))
    cost = decode_latency(task.model, structure, context=4, cache=NOTHING)
    for kept in plans(structure, 5):
        smaller = shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=0))
        assert float(cost(kept)) == pytest.approx(1e3 * formula(smaller), rel=1e-6)


def test_what_was_measured_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input)
    timed = measured_by(formula, monkeypatch)
    first = decode_latency(task.model, structure, context=4, cache=MeasurementCache(tmp_path))
    count = len(timed)
    again = decode_latency(task.model, structure, context=4, cache=MeasurementCache(tmp_path))
    assert len(timed) == count
    assert np.array_equal(first.tables, again.tables)
    decode_latency(task.model, structure, context=5, cache=MeasurementCache(tmp_path))
    assert len(timed) > count


def test_noise_makes_no_size_faster_than_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    measured_by(lambda network, **_: formula(network) * rng.uniform(1, 1.5), monkeypatch)
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("heads", "neurons", "attention"))
    cost = decode_latency(task.model, structure, context=4, cache=NOTHING)
    assert (np.diff(cost.tables, axis=1) >= 0).all()
    assert (cost.tables >= 0).all()
    assert cost.constant >= 0


def test_a_token_is_really_timed() -> None:
    ticks = iter(range(10**6))
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("attention", "ffn"))
    cost = decode_latency(task.model, structure, context=4, cache=NOTHING, clock=lambda: float(next(ticks)))
    assert float(cost(structure.units)) == pytest.approx(
        1e3
    )  # one tick for every network: all of it is outside the blocks
    assert cost.constant == pytest.approx(1e3)
    assert isinstance(cost, DecodeLatency)


def test_budgets_are_met_in_milliseconds_and_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured_by(formula, monkeypatch)
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    structure = StructureSettings(prune=("heads", "neurons"))
    for budget, limit in (("decode:1.3x", 1 / 1.3), ("decode:0.8", 0.8)):
        problem = Problem.prepare(TINY["llama"](), ProblemSpec(budget=budget, structure=structure))
        assert problem.projector.budget.limit == pytest.approx(limit * problem.projector.budget.dense)
        kept = problem.projector.project(np.ones(len(problem.structure.groups)))
        smaller = problem.pruned(problem.structure.plan(kept))
        assert 1e3 * formula(smaller) <= problem.projector.budget.limit * (1 + 1e-9)
        assert "decode" in problem.costs
    for budget, sentence in (
        ("decode:0.5x", "is more"),
        ("decode:9x", "feasible budgets"),
        ("macs:2y", "'x' for so many"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Problem.prepare(TINY["llama"](), ProblemSpec(budget=budget, structure=structure))


def test_what_cannot_be_timed_is_a_sentence() -> None:
    bert = TINY["bert"]()
    with pytest.raises(ValueError, match="only decoders write tokens"):
        decode_latency(bert.model, find_structure(bert.model, bert.example_input), context=4, cache=NOTHING)
    experts = TINY["mixtral"]()
    with pytest.raises(ValueError, match="not measured for experts"):
        decode_latency(experts.model, find_structure(experts.model, experts.example_input), context=4, cache=NOTHING)
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("heads", "queries"))
    with pytest.raises(ValueError, match="heads and queries make one sublayer narrower"):
        decode_latency(task.model, structure, context=4, cache=NOTHING)
    with pytest.raises(ValueError, match=r"costs\.context=32: .* 32 positions"):
        decode_latency(task.model, find_structure(task.model, task.example_input), context=32, cache=NOTHING)
    structure = find_structure(task.model, task.example_input, prune=("neurons",))
    kept = np.array([group.levels[index] for index, group in enumerate(structure.groups)])
    smaller = shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=0))
    with pytest.raises(ValueError, match="3 kinds"):
        decode_latency(smaller, structure, context=4, cache=NOTHING)


def test_sizes_that_are_timed() -> None:
    assert measured_sizes(1) == [1]
    assert measured_sizes(3) == [1, 2, 3]
    assert measured_sizes(1536) == [1, 192, 384, 576, 768, 960, 1152, 1344, 1536]
