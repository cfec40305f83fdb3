"""Which kind of output a task has is inferred from outputs, targets and loss, and refused where it is ambiguous."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.kind_inference import families_of, output_kinds
from autoprune.task.outputs import OutputKind
from autoprune.task.roles import Role, Roles
from autoprune.task.task import Task
from tests.kinds import kind_task

N = 24


def labels(classes: int, *shape: int) -> Tensor:
    return torch.arange(N * max(1, int(torch.tensor(shape).prod()))).remainder(classes).view(N, *shape)


def kinds(
    outputs: Any, targets: Any, loss: object = None, *, given: Any = None, tokens: bool = False
) -> tuple[Any, ...]:
    inputs = torch.zeros(N, 3, dtype=torch.long) if tokens else torch.zeros(N, 3)
    return output_kinds(outputs, targets, given=given, loss=loss, inputs=inputs, few_targets=targets)


def written_out(o: Tensor, y: Tensor) -> Tensor:
    return ((o - y) ** 2).mean()


class LabelSmoothingCrossEntropy(nn.Module):
    def forward(self, o: Tensor, y: Tensor) -> Tensor:
        return -o.log_softmax(1).gather(1, y[:, None]).mean()


def closed_over(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda o, y: 2 * loss(o, y)


LOGITS, ONE, IMAGE, SEQUENCE = torch.randn(N, 5), torch.randn(N, 1), torch.randn(N, 5, 4, 3), torch.randn(N, 7, 5)
SIGNS = 2.0 * labels(2)[:, None] - 1
MANY_HOT = (torch.rand(N, 5) > 0.3).float()
INFERRED: dict[str, tuple[Any, Any, object, bool, str, int]] = {
    "labels": (LOGITS, labels(5), None, False, "classification", 1),
    "labels, cross-entropy": (LOGITS, labels(3), F.cross_entropy, False, "classification", 1),
    "labels, a loss of one's own": (LOGITS, labels(3), LabelSmoothingCrossEntropy(), False, "classification", 1),
    "labels, a loss behind another": (LOGITS, labels(3), closed_over(F.cross_entropy), False, "classification", 1),
    "soft labels": (LOGITS, LOGITS.softmax(1), nn.CrossEntropyLoss(), False, "classification", 1),
    "one-hot": (LOGITS, F.one_hot(labels(5), 5).float(), None, False, "classification", 1),
    "a sequence of classes": (SEQUENCE, labels(5, 7), None, False, "classification", -1),
    "a signal of classes": (SEQUENCE, labels(7, 5), None, False, "classification", 1),
    "pixels": (IMAGE, labels(5, 4, 3), None, False, "segmentation", 1),
    "pixels, none a class": (IMAGE, torch.full((N, 4, 3), 255), None, False, "segmentation", 1),
    "tokens": (SEQUENCE, labels(5, 7), None, True, "language", -1),
    "many-hot": (LOGITS, MANY_HOT, None, False, "multilabel", 1),
    "many-hot, whole numbers": (LOGITS, MANY_HOT.long(), None, False, "multilabel", 1),
    "many-hot, BCE": (LOGITS, MANY_HOT, nn.BCEWithLogitsLoss(), False, "multilabel", 1),
    "one logit": (ONE, labels(2), None, False, "multilabel", 1),
    "one logit, floats": (ONE, labels(2).float()[:, None], F.binary_cross_entropy_with_logits, False, "multilabel", 1),
    "ranks by thresholds": (LOGITS, labels(6), lambda o, y: -F.logsigmoid(o).mean(), False, "multilabel", 1),
    "soft labels, no loss": (LOGITS, LOGITS.softmax(1), None, False, "classification", 1),
    "one-hot, whole numbers": (LOGITS, F.one_hot(labels(5), 5), None, False, "classification", 1),
    "one-hot pixels": (IMAGE, F.one_hot(labels(5, 4, 3), 5).movedim(-1, 1), None, False, "segmentation", 1),
    "one-hot tokens": (SEQUENCE, F.one_hot(labels(5, 7), 5).float(), None, False, "classification", -1),
    "two classes, bools": (torch.randn(N, 2), labels(2).bool(), None, False, "classification", 1),
    "signs, a margin": (ONE, SIGNS, lambda o, y: F.relu(1 - o * y).mean(), False, "multilabel", 1),
    "quantiles, written out": (LOGITS, torch.randn(N, 1), written_out, False, "regression", 1),
    "numbers": (LOGITS, torch.randn(N, 5), None, False, "regression", 1),
    "numbers, written out": (ONE, torch.randn(N, 1), written_out, False, "regression", 1),
    "0 or 1, squared error": (ONE, labels(2).float()[:, None], F.mse_loss, False, "regression", 1),
    "a time series": (torch.randn(N, 7, 1), torch.randn(N, 7, 1), nn.HuberLoss(), False, "regression", 1),
    "counts": (ONE, labels(9), None, False, "regression", 1),
    "an image": (torch.rand(N, 3, 4, 4), torch.rand(N, 3, 4, 4), written_out, False, "regression", 1),
    "triplets": (F.normalize(LOGITS), labels(3), lambda o, y: F.triplet_margin_loss(o, o, o), False, "embedding", -1),
    "unlabelled, cosines": (LOGITS, None, nn.CosineEmbeddingLoss(), False, "embedding", -1),
    "unlabelled, probabilities": (LOGITS.softmax(1), None, None, False, "classification", 1),
    "unlabelled, cross-entropy": (LOGITS, None, F.cross_entropy, False, "classification", 1),
    "unlabelled tokens": (SEQUENCE, None, None, True, "language", -1),
}  # fmt: skip


@pytest.mark.parametrize("name", INFERRED)
def test_the_kind_is_inferred(name: str) -> None:
    outputs, targets, loss, tokens, kind, axis = INFERRED[name]
    (found,) = kinds(outputs, targets, loss, tokens=tokens)
    assert (found.kind, found.dim) == (kind, axis)


AMBIGUOUS: dict[str, tuple[Any, Any, object]] = {
    "unlabelled numbers": (LOGITS, None, None),
    "unlabelled, one number": (ONE, None, None),
    "unlabelled maps": (IMAGE, None, None),
    "classes on either axis": (torch.randn(N, 5, 5), labels(5, 5), None),
    "0 or 1, a loss that says nothing": (ONE, labels(2).float()[:, None], written_out),
    "few labels of many numbers, a loss that says nothing": (-F.one_hot(labels(9), 64).float(), labels(9), written_out),
    "another shape": (LOGITS, torch.randn(N, 9), None),
    "signs": (ONE, SIGNS, None),
    "no answer as −1": (LOGITS, labels(3, 5).float() - 1, None),
    "maps that are answers to one loss and numbers to another": (
        torch.randn(N, 2),
        torch.rand(N, 2),
        lambda o, y: F.mse_loss(o, y) + F.binary_cross_entropy_with_logits(o, y),
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_with_the_way_to_say_it(name: str) -> None:
    with pytest.raises(ValueError, match=r"ambiguous.*Task\(kind=...\)"):
        kinds(*AMBIGUOUS[name])


@pytest.mark.parametrize(
    ("outputs", "targets", "way"),
    [(LOGITS, labels(5).double(), r"targets\.long\(\)"), (ONE, SIGNS, r"\(targets > 0\)\.float\(\)"),
     (IMAGE, labels(5, 1, 4, 3), r"\[samples, 4, 3\].*squeeze\(1\) has")],
)  # fmt: skip
def test_labels_in_another_form_are_refused_with_the_one_that_is(outputs: Tensor, targets: Tensor, way: str) -> None:
    with pytest.raises(ValueError, match=way):
        kinds(outputs, targets)


def test_nested_outputs_have_the_targets_of_their_last_name() -> None:
    outputs = [{"classes": LOGITS, "boxes": torch.randn(N, 4)}]
    targets = {"classes": labels(5), "boxes": torch.randn(N, 4)}
    assert [(kind.name, kind.kind) for kind in kinds(outputs, targets)] == [
        ("0.classes", "classification"),
        ("0.boxes", "regression"),
    ]
    twice = [{"boxes": torch.randn(N, 4)}, {"boxes": torch.randn(N, 4)}]
    with pytest.raises(ValueError, match=r"outputs '0\.boxes' of shape"):
        kinds(twice, {"boxes": torch.randn(N, 4)})


def test_a_classifier_under_an_unknown_loss_is_known_by_its_answers() -> None:
    answers = labels(9)
    assert kinds(F.one_hot(answers, 64).float(), answers, written_out)[0].kind == "classification"


def test_cross_entropy_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"always 0.*binary_cross_entropy"):
        kinds(ONE, labels(2), F.cross_entropy)


def test_probabilities_are_noticed() -> None:
    assert kinds(LOGITS.softmax(1), labels(5))[0].probabilities
    assert not kinds(LOGITS, labels(5))[0].probabilities
    assert not kinds(LOGITS.log_softmax(1), labels(5), F.nll_loss)[0].probabilities  # logits as good as any
    assert kinds(LOGITS.sigmoid(), MANY_HOT)[0].probabilities
    assert kinds(LOGITS.sigmoid()[:2], MANY_HOT, F.binary_cross_entropy)[0].probabilities
    assert not kinds(LOGITS.sigmoid(), MANY_HOT, F.binary_cross_entropy_with_logits)[0].probabilities
    assert kinds(IMAGE.softmax(1), labels(5, 4, 3))[0].probabilities


def test_what_is_given_is_taken() -> None:
    assert kinds(LOGITS, None, given="regression")[0] == OutputKind("regression", probabilities=False)
    given = OutputKind("classification", axis=-1, probabilities=True, weight=0.5)
    assert kinds(SEQUENCE, labels(5, 7), given=given)[0].dim == -1
    assert kinds(SEQUENCE, labels(5, 7), given="classification")[0].dim == -1  # where the targets have none
    with pytest.raises(ValueError, match="have no axis 3"):
        kinds(LOGITS, labels(5), given=OutputKind("classification", axis=3))
    with pytest.raises(ValueError, match="kind must be classification, "):
        kinds(LOGITS, labels(5), given="clasification")
    with pytest.raises(ValueError, match="several numbers for each sample"):
        kinds(torch.randn(N), labels(2), given="classification")


OUTPUTS = {"logits": LOGITS, "boxes": torch.randn(N, 4), "masks": IMAGE.softmax(1)}


def test_every_output_counts() -> None:
    found = kinds(OUTPUTS, labels(5))
    assert [(k.name, k.kind, k.weight) for k in found] == [
        ("logits", "classification", 1), ("boxes", "regression", 1), ("masks", "segmentation", 1),
    ]  # fmt: skip
    assert [k.name for k in kinds((LOGITS, (ONE, None)), labels(5))] == ["0", "1.0"]


def test_outputs_have_the_targets_of_their_name_or_place() -> None:
    by_name = kinds(OUTPUTS, {"masks": labels(5, 4, 3), "logits": MANY_HOT})
    assert [k.kind for k in by_name] == ["multilabel", "regression", "segmentation"]
    by_place = kinds((LOGITS, ONE), (labels(5), labels(2).float()[:, None]))
    assert [k.kind for k in by_place] == ["classification", "multilabel"]


def test_kinds_and_weights_are_given_by_name() -> None:
    found = kinds(OUTPUTS, labels(5), given={"boxes": OutputKind("embedding", weight=0.2), "masks": "regression"})
    assert [(k.kind, k.weight) for k in found] == [("classification", 1), ("embedding", 0.2), ("regression", 1)]
    with pytest.raises(ValueError, match=r"\['box'\].*\['logits', 'boxes'"):
        kinds(OUTPUTS, labels(5), given={"box": "regression"})
    with pytest.raises(ValueError, match="weight 0"):
        kinds(LOGITS, labels(5), given=OutputKind("classification", weight=0))


@pytest.mark.parametrize(
    ("loss", "families"),
    [
        (F.cross_entropy, {"classes"}),
        (functools.partial(F.cross_entropy, label_smoothing=0.1), {"classes"}),
        (nn.BCELoss(), {"yes or no"}),
        (nn.MultiLabelSoftMarginLoss(), {"logits"}),
        (nn.SmoothL1Loss(), {"numbers"}),
        (nn.TripletMarginLoss(), {"directions"}),
        (lambda o, y: F.cross_entropy(o["a"], y) + F.mse_loss(o["b"], y), {"classes", "numbers"}),
        (written_out, set()),
    ],
)
def test_a_loss_tells_what_it_reads(loss: object, families: set[str]) -> None:
    assert families_of(loss) == families


def test_tasks_print_what_they_judge() -> None:
    roles = Roles.split(torch.randn(40, 3), torch.arange(40) % 4)
    assert (
        Task(nn.Linear(3, 4), torch.zeros(1, 3), roles).describe() == "judged as classification of logits, by accuracy"
    )
    numbers = Roles.split(torch.randn(40, 3), torch.randn(40, 2))
    assert Task(nn.Linear(3, 2), torch.zeros(1, 3), numbers).describe() == "judged as regression, by R²"
    unlabelled = Roles.split(Role(torch.randn(40, 3)))
    task = Task(nn.Linear(3, 2), torch.zeros(1, 3), unlabelled, kind="regression")
    assert task.describe() == "judged as regression, unlabelled, so by what the dense network answers"


def several_losses(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """A detector's: its code does not say which of its losses reads which output."""
    classes = F.cross_entropy(outputs["scores"].flatten(0, 1), targets["anchors"].flatten())
    return classes + F.smooth_l1_loss(outputs["offsets"], targets["corners"])


def test_a_loss_tells_by_what_it_does_where_its_code_does_not() -> None:
    """What is added to all scores of an anchor changes no softmax; what is added to corners does."""
    outputs = {"scores": torch.randn(N, 6, 5), "offsets": torch.randn(N, 6, 4)}
    targets = {"anchors": torch.randint(0, 5, (N, 6)), "corners": torch.randn(N, 6, 4)}
    first, second = kinds(outputs, targets, several_losses)
    assert (first.kind, first.axis, second.kind) == ("classification", -1, "regression")


def correlation(o: Tensor, y: Tensor) -> Tensor:
    return 1 - torch.corrcoef(torch.stack([o.flatten(), y.flatten()]))[0, 1]


def test_a_loss_that_reads_neither_size_nor_level_reads_no_logits() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        kinds(torch.randn(N, 7, 5), torch.randint(0, 2, (N, 7, 5)).float(), correlation)


def test_logarithms_of_probabilities_are_noticed() -> None:
    """As in speech and text recognition, whose targets are shorter than the outputs."""
    outputs = torch.randn(N, 8, 5).log_softmax(-1)
    (kind,) = kinds(outputs, torch.randint(1, 5, (N, 3)), lambda o, y: o.square().mean() * y.float().mean())
    assert (kind.kind, kind.axis, kind.probabilities) == ("classification", -1, False)


def ctc(o: Tensor, y: Tensor) -> Tensor:
    lengths = torch.full((len(o),), o.shape[1]), torch.full((len(o),), y.shape[1])
    return F.ctc_loss(o.log_softmax(-1).transpose(0, 1), y, *lengths)


@pytest.mark.parametrize("length", [3, 5, 8])
def test_classes_are_where_the_loss_reads_them_however_long_targets_are(length: int) -> None:
    """Labels may be as many as classes, or as steps: the shape then points to an axis, and it may be the wrong one."""
    (kind,) = kinds(torch.randn(N, 8, 5), torch.randint(1, 5, (N, length)), ctc)
    assert (kind.kind, kind.dim) == ("classification", -1)
    (kind,) = kinds(torch.randn(N, 5, 8), torch.randint(1, 5, (N, length)), lambda o, y: ctc(o.transpose(1, 2), y))
    assert (kind.kind, kind.dim) == ("classification", 1)


@pytest.mark.parametrize("transposed", [False, True])
def test_texts_that_are_too_long_for_their_steps_do_not_hide_the_classes(transposed: bool) -> None:
    """Of five equal labels each needs a step, and a blank between it and the next: nine, where there are eight."""
    outputs, targets = torch.randn(N, 8, 5), torch.randint(1, 5, (N, 5))
    targets[: N // 2] = 1
    targets[N // 2 :] = torch.tensor([1, 2, 3, 4, 1])
    assert ctc(outputs, targets).isinf()
    if transposed:
        (kind,) = kinds(outputs.transpose(1, 2), targets, lambda o, y: ctc(o.transpose(1, 2), y))
    else:
        (kind,) = kinds(outputs, targets, ctc)
    assert (kind.kind, kind.dim) == ("classification", 1 if transposed else -1)


def test_square_outputs_are_told_by_the_loss() -> None:
    """As many steps as classes."""
    outputs, targets = torch.randn(N, 5, 5), labels(5, 5)
    assert kinds(outputs, targets, F.cross_entropy)[0].dim == 1
    assert kinds(outputs, targets, lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten()))[0].dim == -1


def test_pixels_that_a_loss_leaves_out_are_no_class() -> None:
    targets = labels(5, 4, 3)
    targets[:, 0] = -100
    loss = functools.partial(F.cross_entropy, ignore_index=-100)
    assert (kinds(IMAGE, targets, loss)[0].kind, kinds(IMAGE, targets, loss)[0].classes) == ("segmentation", 5)


@pytest.mark.parametrize("targets", [lambda x: {"label": torch.arange(len(x)) % 4, "weight": torch.rand(len(x))},
                                     lambda x: (torch.arange(len(x)) % 4, torch.rand(len(x)))])  # fmt: skip
def test_targets_may_hold_weights_of_samples(targets: Any) -> None:
    def loss(outputs: Tensor, targets: Any) -> Tensor:
        labels, weights = targets.values() if isinstance(targets, dict) else targets
        return (F.cross_entropy(outputs, labels, reduction="none") * weights).mean()

    task = kind_task(4, targets=targets, loss=loss, metric=lambda o, t: -float(loss(o, t)))
    assert [kind.kind for kind in task.outputs] == ["classification"]
    assert task.trained


def test_labels_in_a_column_are_told_from_numbers() -> None:
    with pytest.raises(ValueError, match=r"shape \[\d+, 1\].*squeeze\(1\)"):
        kind_task(4, targets=lambda x: (torch.arange(len(x)) % 4)[:, None])


def poisson(o: Tensor, y: Tensor) -> Tensor:
    return F.poisson_nll_loss(o, y, log_input=True)


@pytest.mark.parametrize("loss", [poisson, nn.PoissonNLLLoss()])
def test_a_likelihood_of_numbers_is_no_cross_entropy(loss: object) -> None:
    (kind,) = kinds(ONE, labels(6)[:, None].float(), loss)
    assert kind.kind == "regression"
    assert kinds(LOGITS, labels(5), nn.NLLLoss())[0].kind == "classification"


def test_a_mean_and_a_variance_of_one_number_are_no_two_classes() -> None:
    """Their targets are fewer than the answers, so that no metric follows from them."""

    def gaussian(o: Tensor, y: Tensor) -> Tensor:
        return F.gaussian_nll_loss(o[:, :1], y, o[:, 1:].exp())

    task = kind_task(2, targets=lambda x: x.flatten(1).sum(1, keepdim=True), loss=gaussian)
    assert ([kind.kind for kind in task.outputs], task.measured, task.trained) == (["regression"], False, True)
