"""A task's own metric and loss are called as they are meant to be, or refused in a sentence."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.taylor import taylor
from autoprune.structure.graph import find_structure
from autoprune.task.default_metrics import DefaultMetric
from autoprune.task.given_functions import (
    TRIED_NUMBERS,
    BatchedMetric,
    check_answers,
    left_out_targets,
    reading,
    with_gradient,
)  # fmt: skip
from autoprune.task.outputs import OutputKind
from autoprune.task.roles import Roles
from autoprune.task.task import Task
from tests.kinds import kind_task

CLASSES = torch.arange(24) % 4
LOGITS = 2 * F.one_hot(CLASSES, 4) + 0.3 * torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.linspace(-1, 1, 24)[:, None]
NEAR = NUMBERS + 0.05 * torch.randn(24, 1, generator=torch.Generator().manual_seed(1))


class Gathers:
    """Counts right answers of all batches since its last reset, as torchmetrics' do."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.number = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.right += int((outputs.argmax(1) == targets).sum())
        self.number += len(targets)

    def compute(self) -> Tensor:
        return torch.tensor(self.right / self.number)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.update(outputs, targets)
        return self.compute()


def test_a_metric_that_gathers_batches_says_the_same_of_the_same_samples() -> None:
    task = kind_task(4, targets=lambda x: torch.arange(len(x)) % 4, metric=Gathers())
    assert isinstance(task.metric, BatchedMetric)
    assert task.judged["metric"] == "Gathers"
    wrong = LOGITS.roll(1, 1)
    assert [float(task.metric(x, CLASSES)) for x in (LOGITS, wrong, LOGITS)] == [1.0, 0.0, 1.0]
    assert task.metric.metric.number == 0  # nothing is held between two calls, so its identity is always the same


def test_a_metric_that_remembers_is_refused() -> None:
    asked: list[float] = []

    def mean_so_far(outputs: Tensor, targets: Tensor) -> float:
        asked.append(float((outputs.argmax(1) == targets).float().mean()))
        return sum(asked) / len(asked)

    with pytest.raises(ValueError, match=r"metric is 1 of some outputs .* the next time.*reset\(\), update"):
        reading("metric", mean_so_far, LOGITS, CLASSES)


def of_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) != targets).float().mean()


SIGNS: dict[str, tuple[Any, Callable[..., Any], Tensor, Tensor, bool]] = {
    "an error rate": ("metric", of_errors, LOGITS, CLASSES, False),
    "a squared error": ("metric", nn.MSELoss(), NEAR, NUMBERS, False),
    "its negative": ("metric", lambda o, t: -F.mse_loss(o, t), NEAR, NUMBERS, True),
    "a likelihood": ("loss", lambda o, t: -F.cross_entropy(o, t), LOGITS, CLASSES, False),
    "a cross-entropy": ("loss", nn.CrossEntropyLoss(label_smoothing=0.1), LOGITS, CLASSES, True),
    "of answers that are no better than others": ("metric", of_errors, LOGITS[:1].expand(24, 4), CLASSES, True),
    "of too few samples": ("metric", of_errors, LOGITS[:5], CLASSES[:5], True),
}


@pytest.mark.parametrize("name", SIGNS)
def test_a_function_of_the_wrong_sign_is_refused(name: str) -> None:
    what, function, outputs, targets, taken = SIGNS[name]
    error = F.mse_loss if outputs is NEAR else F.cross_entropy
    if taken:
        check_answers({what: function}, error=error, outputs=outputs, targets=targets)
        return
    with pytest.raises(ValueError, match=rf"task\.{what} is .* dealt to other samples.*return its negative"):
        check_answers({what: function}, error=error, outputs=outputs, targets=targets)


def test_a_network_that_is_worse_than_chance_is_no_matter_of_signs() -> None:
    """As one that was never trained may be: its error says so as well."""
    check_answers({"metric": lambda o, t: -F.mse_loss(o, t)}, error=F.mse_loss, outputs=-NEAR, targets=NUMBERS)


def r2_score(y_true: Tensor, y_pred: Tensor) -> float:
    return float(1 - F.mse_loss(y_pred, y_true) / y_true.var())


class Scored(nn.Module):
    def forward(self, target: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, target)


@pytest.mark.parametrize(
    ("what", "function", "outputs", "targets", "taker"),
    [("metric", r2_score, NEAR, NUMBERS, "r2_score takes"), ("loss", Scored(), LOGITS, CLASSES, "Scored takes"),
     ("loss", lambda a, b: F.cross_entropy(b, a), LOGITS, CLASSES, "this one takes them the other way round")],
)  # fmt: skip
def test_arguments_in_another_order_are_told_of(
    what: Any, function: Callable[..., Any], outputs: Tensor, targets: Tensor, taker: str
) -> None:
    with pytest.raises(ValueError, match=rf"called with \(outputs, targets\), and {taker}"):
        reading(what, function, outputs, targets)


@pytest.mark.parametrize("value", [(torch.tensor(1.0), {}), {"loss": torch.tensor(1.0)}])
def test_a_loss_that_is_no_number_is_refused_as_a_metric_is(value: Any) -> None:
    with pytest.raises(ValueError, match=f"task.loss must return one number, and returned a {type(value).__name__}"):
        reading("loss", lambda o, t: value, LOGITS, CLASSES)


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return (F.relu(1 - outputs * targets) * (targets != 0)).mean()


def of_those_there(outputs: Tensor, targets: Tensor) -> Tensor:
    there = targets != -9
    return (outputs[there] - targets[there]).abs().mean()


LEFT_OUT: dict[str, tuple[Any, OutputKind, Tensor, Tensor, tuple[float, ...]]] = {
    "no class": (nn.CrossEntropyLoss(ignore_index=2), OutputKind("classification"), LOGITS, CLASSES, (2,)),
    "a weight of 0": (
        nn.CrossEntropyLoss(torch.tensor([0.0, 1, 2, 0])), OutputKind("classification"), LOGITS, CLASSES, (0, 3)
    ),
    "padding": (
        lambda o, t: F.cross_entropy(o.transpose(1, 2), t, ignore_index=0), OutputKind("classification", axis=-1),
        torch.randn(8, 5, 3), torch.arange(40).view(8, 5) % 3, (0,),
    ),
    "no answer": (hinge, OutputKind("multilabel"), torch.randn(24, 1), torch.arange(24)[:, None] % 3 - 1.0, (0,)),
    "no number": (of_those_there, OutputKind("regression"), NEAR, NUMBERS.masked_fill(NUMBERS > 0.5, -9), (-9,)),
    "nothing": (F.cross_entropy, OutputKind("classification"), 1e4 * LOGITS, CLASSES, ()),
    "a loss that fails": (lambda o, t: o.sum().backward(), OutputKind("classification"), LOGITS, CLASSES, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_loss_does_not_read_is_left_out_of_the_metric_that_follows(name: str) -> None:
    loss, kind, outputs, targets, expected = LEFT_OUT[name]
    assert sorted(left_out_targets(loss, kind, outputs, targets)) == list(expected)


def test_accuracy_does_not_count_padding_that_the_loss_ignores() -> None:
    """Of three labels in four that count, one answer is wrong."""
    loss = functools.partial(F.cross_entropy, ignore_index=0)
    task = kind_task(4, targets=lambda x: torch.arange(len(x)) % 4, loss=loss)
    assert isinstance(task.metric, DefaultMetric)
    answers = 5.0 * F.one_hot(torch.tensor([1, 1, 2, 0]), 4)
    assert task.metric(answers, torch.tensor([0, 1, 2, 3])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: y.double(), lambda y: F.one_hot(y, 4)])
def test_labels_in_other_forms_are_counted_as_labels(form: Callable[[Tensor], Tensor]) -> None:
    """A column of labels is compared with each answer once, not with all of them."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets.argmax(1) if targets.shape == outputs.shape else targets.flatten().long()
        return F.cross_entropy(outputs, labels)

    task = kind_task(4, targets=lambda x: form(torch.arange(len(x)) % 4), loss=loss)
    assert task.outputs[0].kind == "classification"
    answers = torch.where(torch.arange(24)[:, None] < 6, LOGITS.roll(1, 1), LOGITS)
    assert task.metric(answers, form(CLASSES)) == pytest.approx(0.75)


def test_numbers_that_are_not_there_count_in_no_default_metric() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().nansum() / (~targets.isnan()).sum()

    task = kind_task(2, targets=lambda x: x.mean((2, 3))[:, :2].masked_fill(x[:, :2, 0, 0] > 1, torch.nan), loss=loss)
    targets = torch.tensor([[0.0, 1.0], [2.0, torch.nan], [torch.nan, 3.0]])
    outputs = torch.tensor([[0.0, 1.0], [1.0, 9.0], [9.0, 3.0]])
    assert task.metric(outputs, targets) == pytest.approx(1 - 0.5 / 2)


def test_void_labels_of_any_role_count_nowhere() -> None:
    task: Task = kind_task(4, targets=lambda x: torch.where(torch.arange(len(x)) == 7, -100, torch.arange(len(x)) % 4))
    assert task.metric(LOGITS, torch.where(CLASSES == 0, -100, CLASSES)) == 1.0


@pytest.mark.parametrize(
    ("loss", "what"), [(0.25, "a float"), (torch.tensor(0.25), "cut off"), (LOGITS.numpy().mean(), "a float32")]
)
def test_a_loss_without_gradient_is_said_where_one_is_needed(loss: Any, what: str) -> None:
    with pytest.raises(ValueError, match=rf"no gradient.*{what}.*without item\(\)"):
        with_gradient(loss)
    derived = torch.ones(2, requires_grad=True).sum()
    assert with_gradient(derived) is derived


def test_heads_that_a_loss_does_not_read_have_no_taylor_scores() -> None:
    """And do not end the criterion in torch's own words."""
    loss = lambda o, t: F.cross_entropy(o["head0"], t)  # noqa: E731
    task = kind_task(4, 6, targets=lambda x: torch.arange(len(x)) % 4, loss=loss)
    structure = find_structure(task.model, task.example_input, forward=task.forward)
    given = CriterionInputs(task.model, structure, task.data.calibration, task.loss, task.forward, torch.Generator())
    scores = taylor(given, batch_size=8)
    assert all(torch.isfinite(score).all() for score in scores.values())
    assert any(score.any() for score in scores.values())


@pytest.mark.parametrize("kind", ["language", "classification"])
def test_functions_are_tried_on_few_answers_where_these_are_large(kind: str) -> None:
    """Preparing a language model asked its loss about hundreds of whole vocabularies."""
    numbers = list[int]()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        numbers.append(outputs.numel())
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    network = nn.Sequential(nn.Embedding(16, 4), nn.Linear(4, 40_000)).eval()
    tokens = torch.randint(16, (120, 8), generator=torch.Generator().manual_seed(0))
    Task(
        network, tokens[:1], Roles.split(tokens, tokens), kind=OutputKind(kind, axis=-1), loss=loss,
        metric=lambda outputs, targets: float((outputs.argmax(-1) == targets).float().mean()),
    )  # fmt: skip
    one = 8 * 40_000
    assert max(numbers) <= 2 * max(TRIED_NUMBERS, 2 * one)  # twice the same samples, to see whether it is a sum
    assert sum(numbers) < (20 if kind == "language" else 100) * TRIED_NUMBERS
