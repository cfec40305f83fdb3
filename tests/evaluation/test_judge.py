import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.judge import Judge
from autoprune.evaluation.outcome import joined
from autoprune.task.samples import cuts
from autoprune.task.task import Role, Roles, Task, outputs_of
from tests.models import CLASSES, PRUNABLE
from tests.tasks import prepared, tiny_task

METRICS = ("accuracy", "loss", "kl", "agreement")


class Words(nn.Module):
    """Reads whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(self.words(x).mean(1))))


def words_task() -> Task:
    torch.manual_seed(0)
    inputs = torch.randint(11, (60, 7))
    ids = [f"{i}" for i in range(60)]
    roles = [Role(inputs[i : i + 15], torch.arange(15) % CLASSES, tuple(ids[i : i + 15])) for i in range(0, 60, 15)]
    return Task(Words(), inputs[:1], Roles(*roles), budget="macs:0.5")


@given(name=st.sampled_from(["residual", "conv1d", "layer_norm"]), samples=st.integers(1, 60), size=st.integers(1, 45))
def test_blocks_add_up_to_the_whole(name: str, samples: int, size: int) -> None:
    task = tiny_task(name)
    judge, network = Judge(task, task.data.search[:samples], batch_size=size), PRUNABLE[name].model(seed=7)
    ends = cuts(samples, size)
    parts = judge.judge(network, 0, len(ends) - 1)
    whole, judged = judge(network), joined(parts).metrics
    for metric in METRICS:
        assert getattr(judged, metric) == pytest.approx(getattr(whole, metric), rel=1e-5, abs=1e-6)
    assert judged.samples == whole.samples == judge.samples == samples
    sizes = np.diff(ends).tolist()
    expected = [[min(task.block, n - start) for start in range(0, n, task.block)] for n in sizes]
    assert [part.samples.tolist() for part in parts] == expected
    assert all(part.values.dtype == np.float32 and part.samples.dtype == np.int32 for part in parts)
    assert [(b.samples, b.kl) for b in joined(parts).blocks] == [
        (n, kl) for part in parts for n, kl in zip(part.samples, part.values[2], strict=True)
    ]


def test_batches_can_be_judged_apart() -> None:
    task, network = tiny_task(), PRUNABLE["residual"].model(seed=7)
    judge = Judge(task, task.data.search, batch_size=16)
    together = joined(judge.judge(network, 0, 4))
    apart = joined([part for batch in range(4) for part in judge.judge(network, batch, batch + 1)])
    assert np.array_equal(together.values, apart.values)
    assert np.array_equal(together.samples, apart.samples)
    assert judge.judge(network, 2, 2) == []


def test_known_answers() -> None:
    """Two classes, four samples; the other network's outputs are swapped on the last one."""
    inputs = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]]).repeat(4, 1)
    roles = [
        Role(inputs[i : i + 4], torch.tensor([0, 1, 0, 0]), tuple(f"{i + j}" for j in range(4)))
        for i in range(0, 16, 4)
    ]
    task = Task(nn.Identity(), inputs[:1], Roles(*roles))

    class Swapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:3], x[3:].flip(1)])

    same, other = (Judge(task, task.data.search)(network) for network in (nn.Identity(), Swapped()))
    assert dataclasses.astuple(same)[0] == 0.75
    assert dataclasses.astuple(same)[2:] == (0, 1, 4)
    assert (other.accuracy, other.agreement) == (1, 0.75)
    p = 1 / (1 + np.exp(-2.0))
    assert other.kl == pytest.approx((2 * p - 1) * 2 / 4)  # Σ p log(p/q), where q is p swapped
    assert other.loss == pytest.approx(-np.log(p))


def test_samples_with_several_positions() -> None:
    outputs = torch.randn(12, 4, CLASSES, generator=torch.Generator().manual_seed(0))
    roles = [Role(outputs[i : i + 3], torch.zeros(3, 4, dtype=torch.long)) for i in range(0, 12, 3)]

    def metric(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(-1) == targets).float().mean())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    task = Task(nn.Identity(), outputs[:1], Roles(*roles), metric=metric, loss=loss)

    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2

    judge = Judge(task, task.data.search, batch_size=2)
    log_p, log_q = task.data.search.inputs.log_softmax(-1), (task.data.search.inputs / 2).log_softmax(-1)
    expected = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    assert judge(Halved()).kl == pytest.approx(float(expected), rel=1e-5)
    assert joined(judge.judge(Halved(), 0, len(judge.batches))).metrics.kl == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_numbers_stay_what_they_are(dtype: torch.dtype) -> None:
    task = words_task()
    judge = Judge(task, task.data.search, batch_size=4, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(judge.batches, task.data.search.inputs.split(4), strict=True))
    assert judge(task.model.to(dtype)).agreement >= 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_reads_whole_numbers_can_be_searched(precision: str) -> None:
    ready = prepared(words_task(), proxy_samples=8, batch_size=4, precision=precision)
    outcome = ready.objective.uncharged.evaluate([ready.structure.dense])[0]
    assert outcome.metrics.kl == pytest.approx(0, abs=1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_outputs_that_are_not_finite_cannot_be_judged(value: float) -> None:
    task = tiny_task()
    judge = Judge(task, task.data.search, batch_size=25)

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            outputs = outputs_of(task.model, x).clone()
            outputs[-1, :2] = value
            return outputs

    with pytest.raises(FloatingPointError, match=r"2 of.*NaN"):
        judge.judge(Breaks(), 1, 2)
    with pytest.raises(FloatingPointError):
        judge(Breaks())


def test_a_dense_network_with_broken_outputs_is_an_error() -> None:
    task = tiny_task()
    task.data.search.inputs[0] = torch.nan
    with pytest.raises(ValueError, match="dense network's outputs hold NaN or infinity"):
        Judge(task, task.data.search)


def test_images_are_judged_in_channels_last() -> None:
    task = tiny_task()
    judge = Judge(task, task.data.search, batch_size=25)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in judge.batches)
