from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.evaluation import prefix
from autoprune.evaluation.curves import curve_plans
from autoprune.evaluation.evaluator import SlicedEvaluator
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.evaluation.outcome import joined
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.task import Role, Roles, Task
from tests.models import CLASSES, PRUNABLE, Network, random_ranking
from tests.tasks import tiny_task


class Convolutions(TorchFunctionMode):
    """Counts those that are computed while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (F.conv2d, torch.conv2d)
        return function(*args, **(kwargs or {}))


def parts(
    task: Task, structure: Structure | None = None, *, batch_statistics: bool = False, batch: int = 16
) -> tuple[Structure, OrderedNetwork, Judge]:
    structure = structure or find_structure(task.model, task.example_input)
    ordered = OrderedNetwork(
        task.model,
        structure,
        random_ranking(structure, seed=0),
        batch_statistics=batch_statistics,
        example_input=task.example_input,
    )
    return structure, ordered, Judge(task, task.data.search[:24], batch_size=batch)


def same_with_and_without(task: Task, *, batch_statistics: bool, full: bool) -> SlicedEvaluator:
    """To the bit, for plans that prune one group alone; the evaluator that was asked."""
    structure, ordered, judge = parts(task, batch_statistics=batch_statistics)
    evaluator = SlicedEvaluator(ordered, judge, dense=structure.dense.kept)
    _, plain, _ = parts(task, structure, batch_statistics=batch_statistics)
    plans = [plan.kept for plans in curve_plans(structure).values() for plan in plans[:: 1 if full else 3]]
    for kept in [*plans, structure.dense.kept, structure.plan(structure.floor).kept, *plans[:2]]:
        expected = joined(judge.judge(plain.at(kept), 0, 2))
        found = joined(evaluator.judge(kept, 0, 2))
        assert np.array_equal(found.values, expected.values), kept
        assert np.array_equal(evaluator.judge(kept, 1, 2)[0].values, expected.values[:, 2:]), kept
    return evaluator


@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize("name", PRUNABLE)
def test_numbers_are_those_without_a_prefix(name: str, batch_statistics: bool) -> None:
    evaluator = same_with_and_without(tiny_task(name), batch_statistics=batch_statistics, full=name == "residual")
    assert evaluator._prefix._order


def test_the_dense_plan_recalls_everything_and_the_first_group_nothing() -> None:
    structure, ordered, judge = parts(tiny_task())
    evaluator = SlicedEvaluator(ordered, judge, dense=structure.dense.kept)
    assert evaluator._prefix.length(structure.dense.kept) == len(evaluator._prefix._order) > 0

    def convolutions(kept: tuple[int, ...]) -> int:
        with Convolutions() as counted:
            evaluator.judge(kept, 0, 1)
        return counted.count

    stem, middle = structure.units, structure.units
    stem[list(structure.names).index("conv1")], middle[list(structure.names).index("conv2")] = 3, 3
    assert convolutions(structure.plan(middle).kept) == 3 + 2  # all of them once, to remember; then all but the first
    assert convolutions(structure.plan(middle).kept) == 2
    assert convolutions(structure.plan(stem).kept) == 3
    assert convolutions(structure.dense.kept) == 0


def test_layers_compute_again_once_nothing_is_recalled() -> None:
    structure, ordered, judge = parts(tiny_task())
    recalled = prefix.CachedPrefix(ordered, structure.dense.kept, judge.batches)
    expected = ordered.at(structure.dense.kept)(judge.batches[1])
    with recalled.recalled(structure.dense.kept, 0):
        assert any("forward" in vars(layer) for layer in ordered.network.modules())
    with pytest.raises(FloatingPointError), recalled.recalled(structure.dense.kept, 0):
        raise FloatingPointError
    assert not any("forward" in vars(layer) for layer in ordered.network.modules())
    assert torch.equal(ordered.at(structure.dense.kept)(judge.batches[1]), expected)


class Writes(nn.Module):
    """Writes into what a layer has returned."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.fc, self.how = nn.Linear(6, CLASSES), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        match self.how:
            case "relu_":
                y = F.relu_(y)
            case "+=":
                y += x.mean(1, keepdim=True)
            case "after it was read":
                z = y * 2
                y.relu_()
                y = y + z
            case "module":
                y = F.relu(y, inplace=True)
        return self.fc(F.relu(self.conv2(y)).mean((2, 3)))


@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize("how", ["relu_", "+=", "after it was read", "module"])
def test_a_network_that_writes_into_outputs_is_noticed(
    how: str, batch_statistics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRUNABLE, "writes", Network(lambda: Writes(how)))
    evaluator = same_with_and_without(tiny_task("writes"), batch_statistics=batch_statistics, full=False)
    assert evaluator._prefix._order == []


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_layers_that_work_in_place_are_told_not_to(batch_statistics: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3), nn.ReLU6(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(inplace=True), nn.Linear(6, CLASSES),
        )  # fmt: skip

    monkeypatch.setitem(PRUNABLE, "in_place", Network(build))
    task = tiny_task("in_place")
    evaluator = same_with_and_without(task, batch_statistics=batch_statistics, full=False)
    assert evaluator._prefix._order == ["0", "1", "3", "8"]
    assert task.model[2].inplace  # type: ignore[index,union-attr]


def test_nothing_is_recalled_from_a_layer_that_runs_twice() -> None:
    structure, ordered, judge = parts(tiny_task("shared_layer"))
    recalled = prefix.CachedPrefix(ordered, structure.dense.kept, judge.batches)
    assert recalled._order == ["stem"]


@pytest.mark.parametrize(("batches", "remembered"), [(0, 0), (1, 1), (2.5, 2), (100, 6)])
def test_what_is_kept_fits_into_memory(batches: float, remembered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    structure, ordered, judge = parts(task, batch=4)
    evaluator = SlicedEvaluator(ordered, judge, dense=structure.dense.kept)
    floats = (8 + 6 + 8) * 8 * 8 + CLASSES  # of a sample, in what the layers return
    monkeypatch.setattr(prefix, "MEMORY_BYTES", round(4 * floats * 4 * batches))
    _, plain, _ = parts(task, structure, batch=4)
    kept = structure.units
    kept[list(structure.names).index("conv2")] = 2
    plan = structure.plan(kept).kept
    for _ in range(2):
        assert np.array_equal(
            joined(evaluator.judge(plan, 0, 6)).values, joined(judge.judge(plain.at(plan), 0, 6)).values
        )
    assert sorted(evaluator._prefix._cache) == list(range(remembered))
    assert evaluator._prefix._bytes <= 4 * floats * 4 * batches


def test_a_metric_of_the_whole_role_reads_outputs_of_its_own_batches() -> None:
    """Raced plans come to their last batch with nothing remembered: earlier batches are computed, not recalled."""
    task = tiny_task("plain", metric=lambda outputs, targets: float(outputs.std() / (1 + targets.float().std())))
    structure, ordered, judge = parts(task, batch=7)
    evaluator = SlicedEvaluator(ordered, judge, dense=structure.dense.kept)
    plans = [p for own in curve_plans(structure).values() for p in own if evaluator._prefix.length(p.kept)][:3]
    assert judge.whole_metric
    assert len(plans) == 3
    for batch in range(len(judge.batches)):
        judged = [evaluator.judge(plan.kept, batch, batch + 1)[0] for plan in plans]
    for plan, last in zip(plans, judged, strict=True):
        assert last.values[0, -1] == pytest.approx(judge(ordered.at(plan.kept)).accuracy, rel=1e-5)


class Choosing(nn.Module):
    """Runs one of two layers first, by what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        return self.head(hidden if x[0, 0] > 0 else torch.relu(self.second(hidden)))


def test_batches_that_run_other_layers_are_not_recalled_by_the_first_ones() -> None:
    samples = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    samples[:, 0] = torch.where(torch.arange(40) % 20 < 10, -1.0, 1.0) * (1 + samples[:, 0].abs())
    task = Task(Choosing(), samples[:1], Roles.split(samples), example_inputs=(samples[10:11],), kind="regression")
    role = Role(torch.cat([samples[:10], samples[10:20]]))
    structure = find_structure(task.model, samples[:1], example_inputs=(samples[10:11],))
    ordered = OrderedNetwork(
        task.model, structure, random_ranking(structure, seed=0), batch_statistics=False, example_input=samples[:1]
    )
    judge = Judge(task, role, batch_size=10)
    evaluator = SlicedEvaluator(ordered, judge, dense=structure.dense.kept)
    for plan in [p for own in curve_plans(structure).values() for p in own]:
        judged = joined(evaluator.judge(plan.kept, 0, 2))
        assert judged.metrics.kl == pytest.approx(judge(ordered.at(plan.kept)).kl, rel=1e-5, abs=1e-7)
