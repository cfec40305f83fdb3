"""Networks of every kind are judged by what their outputs mean, with and without labels."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.judge import Judge, agreement, is_mean, kl, metrics_read
from autoprune.evaluation.judge import accuracy as by_accuracy
from autoprune.evaluation.outcome import joined
from autoprune.evaluation.reward import amc, under_budget
from autoprune.recover.distillation import Distillation
from autoprune.repair.repair import Repair
from autoprune.structure.skipped_modules import patched_forward
from autoprune.task.outputs import OutputKind
from autoprune.task.roles import Role, Roles
from autoprune.task.task import Task
from tests.kinds import KINDS, Heads, kind_task
from tests.tasks import prepared


@pytest.mark.parametrize("name", KINDS)
def test_plans_of_every_kind_are_told_apart(name: str) -> None:
    """The dense plan loses nothing, and the less is left the more is lost: today's alternative scored all −0.0."""
    made = KINDS[name]()
    ready = prepared(made, proxy_samples=20, batch_size=10)
    structure = ready.structure
    kept = [tuple(max(1, int(g.units * share)) for g in structure.groups) for share in (1.0, 0.75, 0.2)]
    outcomes = ready.objective.uncharged.evaluate([structure.plan(np.array(k)) for k in kept], whole=True)
    divergences = [outcome.metrics.kl for outcome in outcomes]
    judge = Judge(made, made.data.test)
    dense = judge(made.model)
    assert dense.kl == pytest.approx(0, abs=1e-5)
    assert dense.agreement == pytest.approx(1, abs=1e-5)
    assert divergences[1] < divergences[2], divergences
    assert len({outcome.score for outcome in outcomes}) == 3
    labelled = made.data.test.targets is not None
    assert math.isnan(dense.accuracy) == math.isnan(dense.loss) == (not labelled)
    parts = joined(judge.judge(made.model, 0, len(judge.batches))).metrics
    assert parts.accuracy == pytest.approx(dense.accuracy, nan_ok=True, abs=1e-3)
    assert parts.loss == pytest.approx(dense.loss, nan_ok=True, rel=1e-2)


def test_every_output_counts() -> None:
    """Only the second head is broken: with its weight the divergence grows, without it nothing is seen."""
    made = KINDS["two heads"]()
    broken = Heads(4, 2)
    broken.load_state_dict(made.model.state_dict())
    nn.init.zeros_(broken.heads[1].weight)
    broken.eval()
    weights = {}
    for weight in (0.0, 1.0, 3.0):
        kind = {"head1": OutputKind("regression", weight=weight)}
        weighed = Task(made.model, made.example_input, made.data, kind=kind)
        weights[weight] = Judge(weighed, made.data.test)(broken).kl
    assert weights[0.0] == pytest.approx(0, abs=1e-6)
    assert weights[3.0] == pytest.approx(1.5 * weights[1.0])
    assert weights[1.0] > 0.1


def auc(outputs: Tensor, targets: Tensor) -> float:
    return float(roc_auc_score(targets.numpy(), outputs[:, 1].numpy()))


def f1(outputs: Tensor, targets: Tensor) -> float:
    return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), zero_division=0))


def correlation(outputs: Tensor, targets: Tensor) -> float:
    return float(pearsonr(outputs[:, 0].numpy(), targets.numpy())[0])


@pytest.mark.parametrize("metric", [auc, f1, correlation])
def test_a_metric_that_is_no_mean_sees_the_whole_role(metric: Callable[..., float]) -> None:
    made = kind_task(2, targets=lambda x: (torch.arange(len(x)) % 5 == 0).long(), metric=metric, loss=F.cross_entropy)
    role = made.data.search
    judge = Judge(made, role, batch_size=7)
    with torch.no_grad():
        expected = metric(made.model(role.inputs), role.targets)
    assert judge.whole_metric
    assert judge(made.model).accuracy == pytest.approx(expected, abs=1e-5)
    parts = [
        part for batch in range(len(judge.batches)) for part in judge.judge(made.model, batch, batch + 1, plan=(1,))
    ]
    assert joined(parts).metrics.accuracy == pytest.approx(expected, abs=1e-5)
    assert math.isnan(joined(parts[:-1]).metrics.accuracy), "a part of the samples says nothing of it"
    assert joined(judge.judge(made.model, 0, len(judge.batches))).metrics.accuracy == pytest.approx(expected, abs=1e-5)
    mean = 0.0
    for part in (slice(0, 7), slice(7, 40)):
        with torch.no_grad():
            mean += metric(made.model(role.inputs[part]), role.targets[part]) * (part.stop - part.start) / 40
    assert abs(mean - expected) > 1e-3, "the mean of its parts is something else"


def test_means_are_told_from_others() -> None:
    outputs, targets = torch.randn(40, 3), torch.arange(40) % 3
    perfect = [F.one_hot(targets, 3).float()]
    assert is_mean(lambda o, t: float((o.argmax(1) == t).float().mean()), [outputs], [targets])
    assert is_mean(lambda o, t: -F.cross_entropy(o, t), [outputs[:20], outputs[20:]], [targets[:20], targets[20:]])
    for other in (
        lambda o, t: float(f1_score(t, o.argmax(1), average="macro")),
        lambda o, t: float(r2_score(t, o[:, 0])),
        lambda o, t: -math.sqrt(F.mse_loss(o[:, 0], t.float())),
    ):
        assert not is_mean(other, [outputs], [targets])
        assert not is_mean(other, perfect, [targets]), "of a perfect network it is 1 of every part"


def test_plans_are_not_raced_on_a_score_that_needs_all_samples() -> None:
    made = kind_task(2, targets=lambda x: (torch.arange(len(x)) % 5 == 0).long(), metric=auc)
    by_metric = prepared(made, score=by_accuracy, repair=Repair(batch_norm=False), proxy_samples=20, batch_size=5)
    by_divergence = prepared(made, score=kl, proxy_samples=20, batch_size=5)
    assert (by_metric.objective.uncharged.divisible, by_divergence.objective.uncharged.divisible) == (False, True)
    (outcome,) = by_metric.objective.evaluate([by_metric.structure.dense])
    with torch.no_grad():
        expected = auc(made.model(made.data.search.inputs[:20]), made.data.search.targets[:20])
    assert outcome.score == outcome.metrics.accuracy == pytest.approx(expected)


def test_scores_say_what_they_read() -> None:
    assert metrics_read(kl, under_budget) == {"kl"}
    assert metrics_read(agreement, amc) == {"agreement", "accuracy"}


@pytest.mark.parametrize(("score", "reward"), [(by_accuracy, under_budget), (kl, amc)])
def test_what_needs_labels_says_so_before_the_search(score: Any, reward: Any) -> None:
    with pytest.raises(ValueError, match=r"reads accuracy.* needs labels.*roles \['train', .*score=kl"):
        prepared(KINDS["unlabelled"](), score=score, reward=reward, proxy_samples=20, batch_size=10)


def test_several_inputs_are_judged() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.a(left) + self.b(right)

    left, right, y = torch.randn(60, 4), torch.randn(60, 2), torch.arange(60) % 3
    model, results = Two().eval(), []
    for inputs, example in (((left, right), (left[:1], right[:1])), ({"right": right, "left": left},) * 2):
        role = Role(inputs, y, tuple(map(str, range(60))))
        roles = Roles.split(role)
        made = Task(model, example, roles)
        results.append(Judge(made, roles.test, batch_size=4)(model))
    assert results[0] == results[1]


class Tags(nn.Module):
    """Three classes, or a number, at every step of a series; or both."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(2, 8), nn.ModuleList(nn.Linear(8, width) for width in widths)

    def forward(self, x: Tensor) -> Any:
        answers = tuple(head(self.body(x).tanh()) for head in self.heads)
        return answers if len(answers) > 1 else answers[0]


def by_tags(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=0)


def by_mask(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    wanted, mask = targets
    return ((outputs - wanted).square()[..., 0] * mask).sum() / mask.sum()


def by_length(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    mask = torch.arange(outputs.shape[1]) < targets["steps"][:, None]
    return ((outputs - targets["y"]).square().squeeze(-1) * mask).sum(1).div(mask.sum(1)).mean()


def of_numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.squeeze(-1) - targets)[~targets.isnan()].square().mean()


@pytest.mark.parametrize("padded", ["−100", "ignore_index", "mask", "lengths", "NaN", "one of two outputs"])
def test_what_the_loss_leaves_out_is_not_in_the_score(padded: str) -> None:
    """Answers at padded steps may be anything; those at others are weighed by how many of them a sample has."""
    generator = torch.Generator().manual_seed(0)
    x, lengths = torch.randn(80, 6, 2, generator=generator), torch.arange(80) % 5 + 1
    real = torch.arange(6) < lengths[:, None]
    x[~real] = 9.0
    tags, numbers = torch.randint(1, 3, (80, 6), generator=generator), x.sum(-1)
    network = Tags(*{"−100": (3,), "ignore_index": (3,), "one of two outputs": (3, 2)}.get(padded, (1,))).eval()
    kind: Any = OutputKind("classification", axis=-1)
    cases: dict[str, tuple[Any, Any]] = {
        "−100": (tags.where(real, -100), None),
        "ignore_index": (tags.where(real, 0), by_tags),
        "mask": ((numbers[..., None], real.float()), by_mask),
        "lengths": ({"y": numbers[..., None], "steps": lengths}, by_length),
        "NaN": (numbers.where(real, torch.nan), of_numbers),
        "one of two outputs": ({"0": tags.where(real, -100), "1": tags[:, 0]}, None),
    }
    targets, loss = cases[padded]
    if padded == "one of two outputs":
        kind = {"0": kind, "1": OutputKind("regression", weight=0.0)}
    elif padded in ("mask", "lengths", "NaN"):
        kind = OutputKind("regression", axis=-1)
    made = Task(network, x[:1], Roles.split(x, targets), kind=kind, loss=loss)
    judge = Judge(made, made.data.test)

    def answered(inputs: Tensor, *, padding: bool) -> Any:
        """Other answers of the first output at the padded steps, or at all others."""
        answers = network(inputs)
        first = answers[0] if isinstance(answers, tuple) else answers
        changed = 5.0 * torch.arange(1, first.shape[-1] + 1) * ((inputs == 9.0).all(-1, keepdim=True) == padding)
        return (first + changed, *answers[1:]) if isinstance(answers, tuple) else first + changed

    def divergence(*, padding: bool) -> float:
        with patched_forward({other: partial(answered, padding=padding)}):
            return judge(other).kl

    other = nn.Identity()
    assert divergence(padding=True) == pytest.approx(0, abs=1e-6)
    assert divergence(padding=False) > 1e-2
    dense = judge(network)
    parts = joined(judge.judge(network, 0, len(judge.batches))).metrics
    assert parts.loss == pytest.approx(dense.loss, rel=1e-5)
    assert parts.accuracy == pytest.approx(dense.accuracy, nan_ok=True)

    train, some = made.data.train.inputs, torch.arange(3, 20)
    distil = Distillation.of(made, lambda inputs, _: network(inputs), temperature=1.0)
    lost = [distil(answered(train[some], padding=p), network(train[some]), some).item() for p in (True, False)]
    assert lost[0] == pytest.approx(0, abs=1e-6)
    assert lost[1] > 1e-2
    if padded in ("mask", "lengths", "NaN"):  # nor is it in the variance that errors are divided by
        answers = network(train)[(train != 9.0).any(-1)]
        assert distil.scales[""].item() == pytest.approx(answers.var(correction=0).item(), rel=1e-5)
