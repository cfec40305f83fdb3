import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation import tuning
from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.tuning import agreement_of, fastest_batch
from autoprune.task.task import Roles, Task
from tests.evaluation.tables import Kept, Table
from tests.tasks import prepared

PLANS = [(k,) for k in (5, 1, 4, 2, 3)]


def test_evaluators_agree_where_they_rank_alike() -> None:
    def value(kept: Kept, batch: int, block: int) -> float:
        return float(kept[0])

    exact = Table(value)
    assert agreement_of(lambda: Table(lambda *a: 10 * value(*a)), lambda: exact, PLANS, batches=1) == 1
    assert agreement_of(lambda: Table(lambda *a: -value(*a)), lambda: exact, PLANS, batches=1) == -1
    assert agreement_of(lambda: Table(lambda *a: 0.0), lambda: exact, PLANS, batches=1) == 0
    assert {(job.start, job.stop) for job in exact.asked} == {(0, 1)}
    assert agreement_of(lambda: Table(value), lambda: exact, PLANS, batches=2) == 1


def test_an_evaluator_that_cannot_judge_a_plan_does_not_agree() -> None:
    exact = Table(lambda kept, batch, block: float(kept[0]))
    broken = Table(exact.value, failing=frozenset({(4,)}))
    assert agreement_of(lambda: broken, lambda: exact, PLANS, batches=1) == -1


class NoBfloat16(nn.Module):
    """As torch's convolutions over videos on some processors."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor")
        return self.down(self.up(x).relu())  # type: ignore[no-any-return]


def test_a_network_that_does_not_run_in_bf16_is_judged_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.problem.objective_builder.supports_bf16", lambda device: True)
    torch.manual_seed(0)
    task = Task(
        NoBfloat16(), torch.zeros(1, 6), Roles.split(torch.randn(60, 6), torch.arange(60) % 3), budget="macs:0.6"
    )
    measured = prepared(task, proxy_samples=8, batch_size=4, precision="auto").measured
    assert (measured["precision"], measured["kendall"]) == ("fp32", -1.0)
    with pytest.raises(ValueError, match=r"evaluation.precision=bf16.*could not create.*precision=fp32"):
        prepared(task, proxy_samples=8, batch_size=4, precision="bf16")


@dataclass
class Clock:
    """Stands still, unless an evaluator lets it go on: so many seconds for a batch and for each sample."""

    per_batch: float
    per_sample: float
    now: float = 0.0
    warm: int = 0  # batches that have been judged; the first is slower

    def perf_counter(self) -> float:
        return self.now

    def evaluator(self, size: int) -> Table:
        clock = self

        class Takes(Table):
            def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]:
                clock.now += (clock.per_batch + size * clock.per_sample) * (1 if clock.warm else 5)
                clock.warm += 1
                return super().judge(kept, start, stop)

        return Takes(lambda kept, batch, block: 0.0)


@pytest.mark.parametrize(
    ("per_batch", "per_sample", "samples", "expected"),
    [
        (0.0, 1e-3, 1000, 50),  # a larger batch gains nothing
        (1e-3, 1e-3, 1000, 50),  # and here 2 %
        (10e-3, 1e-3, 1000, 100),  # 1.2, 1.1, 1.04 and 1.02 ms for a sample
        (100e-3, 1e-3, 1000, 500),
        (100e-3, 1e-3, 200, 200),  # there are no more samples
        (100e-3, 1e-3, 30, 30),
    ],
)
def test_the_smallest_batch_that_is_nearly_the_fastest(
    per_batch: float, per_sample: float, samples: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(per_batch, per_sample)
    monkeypatch.setattr(tuning, "time", clock)
    assert fastest_batch(clock.evaluator, (1,), most=samples) == expected
    assert math.isfinite(clock.now)
