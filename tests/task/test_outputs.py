"""What outputs mean: divergence, agreement and distillation of every kind, against formulas of their own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

from autoprune.task.outputs import KINDS, OutputKind, combined

SHAPES = {
    "classification": (6, 5),
    "segmentation": (6, 5, 4, 3),
    "multilabel": (6, 5),
    "regression": (6, 5),
    "embedding": (6, 5),
    "language": (6, 4, 5),
}


def drawn(kind: str, seed: int) -> Tensor:
    return torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(seed))


def compared(kind: OutputKind, outputs: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    reference = kind.reference(dense)
    scale = kind.scale(reference) if kind.has_scale else None
    return kind.divergence(outputs, reference, scale), kind.agreement(outputs, reference, scale)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_dense_network_is_nothing_apart_from_itself_and_others_are(kind: str, seed: int) -> None:
    meaning, dense, other = OutputKind(kind), drawn(kind, seed), drawn(kind, seed + 5000)  # type: ignore[arg-type]
    divergence, agreement = compared(meaning, dense, dense)
    torch.testing.assert_close(divergence, torch.zeros(6).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(agreement, torch.ones(6).double(), atol=1e-6, rtol=0)
    divergence, agreement = compared(meaning, other, dense)
    assert divergence.shape == agreement.shape == (6,)
    assert bool((divergence > 1e-3).all())
    assert bool(((agreement >= 0) & (agreement <= 1)).all())
    assert agreement.mean() < 0.95


@pytest.mark.parametrize("kind", ["classification", "segmentation", "language"])
def test_classes_are_compared_by_kl_and_top_1(kind: str) -> None:
    outputs, dense, meaning = drawn(kind, 1), drawn(kind, 2), OutputKind(kind)  # type: ignore[arg-type]
    divergence, agreement = compared(meaning, outputs, dense)
    p, q = (Categorical(logits=x.movedim(meaning.dim, -1)) for x in (dense, outputs))
    torch.testing.assert_close(divergence, kl_divergence(p, q).view(6, -1).mean(1).double(), rtol=1e-4, atol=1e-6)
    same = p.logits.argmax(-1) == q.logits.argmax(-1)
    torch.testing.assert_close(agreement, same.double().view(6, -1).mean(1))


def test_a_segmentation_is_not_compared_over_the_width_of_the_image() -> None:
    """Every pixel's class is another one, and yet the largest column stays where it was."""
    dense = torch.zeros(2, 3, 4, 4)
    dense[:, 0, :, 1], outputs = 9.0, torch.zeros(2, 3, 4, 4)
    outputs[:, 1, :, 1], outputs[:, 2] = 9.0, 5.0
    assert compared(OutputKind("segmentation"), outputs, dense)[1].max() == 0
    assert compared(OutputKind("classification", axis=-1), outputs, dense)[1].min() > 0.3  # the wrong axis


@pytest.mark.parametrize("shape", [(6, 5), (6, 1), (6,)])
def test_answers_are_compared_by_the_sum_of_their_kl(shape: tuple[int, ...]) -> None:
    outputs, dense = torch.randn(shape), 3 * torch.randn(shape)
    divergence, agreement = compared(OutputKind("multilabel"), outputs, dense)
    expected = kl_divergence(Bernoulli(logits=dense), Bernoulli(logits=outputs)).view(6, -1).sum(1)
    torch.testing.assert_close(divergence, expected.double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(agreement, ((outputs > 0) == (dense > 0)).double().view(6, -1).mean(1))


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_probabilities_are_compared_as_their_logits_are(kind: str) -> None:
    outputs, dense = torch.randn(6, 5), torch.randn(6, 5)
    squash = F.softmax if kind == "classification" else lambda x, dim: x.sigmoid()
    said = OutputKind(kind, probabilities=True)  # type: ignore[arg-type]
    by_logits = compared(OutputKind(kind), outputs, dense)  # type: ignore[arg-type]
    by_probabilities = compared(said, squash(outputs, dim=1), squash(dense, dim=1))
    for one, other in zip(by_logits, by_probabilities, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_network_that_answers_0_everywhere_does_not_win() -> None:
    """Softmax of zeros is uniform, as softmax of probabilities nearly is: as logits, 0 everywhere is close to them."""
    dense = F.softmax(4 * torch.randn(50, 10), dim=1)
    close = F.softmax(dense.log() + 0.5 * torch.randn(50, 10), dim=1)
    said, unsaid = OutputKind("classification", probabilities=True), OutputKind("classification")
    zero = torch.zeros_like(dense)
    assert compared(said, zero, dense)[0].mean() > 10 * compared(said, close, dense)[0].mean()
    assert compared(unsaid, zero, dense)[0].mean() < 0.5  # the control: what reading them as logits says of it
    assert bool((compared(said, zero, dense)[0] >= 0).all())


def test_numbers_are_compared_relative_to_their_own_variance() -> None:
    dense = torch.randn(400, 3) * torch.tensor([1.0, 1000.0, 0.01]) + torch.tensor([0.0, 5.0, 60.0])
    meaning = OutputKind("regression")
    divergence, agreement = compared(meaning, dense.mean(0).expand_as(dense), dense)
    assert divergence.mean() == pytest.approx(1, rel=1e-3)  # who answers the mean has lost everything
    for feature in range(3):
        off = dense.clone()
        off[:, feature] += 0.5 * dense[:, feature].std(correction=0)
        divergence, agreement = compared(meaning, off, dense)
        assert divergence.mean() == pytest.approx(0.25 / 3, rel=1e-2)
        assert agreement.mean() == pytest.approx(1 - 0.25 / 3, rel=1e-2)


def test_a_number_that_never_varies_is_relative_to_its_size() -> None:
    dense = torch.cat([torch.randn(50, 1), torch.full((50, 1), 100.0), torch.zeros(50, 1)], dim=1)
    divergence, _ = compared(OutputKind("regression"), dense + torch.tensor([0.0, 1.0, 0.0]), dense)
    assert divergence.mean() == pytest.approx(1e-4 / 3, rel=1e-3)
    assert bool(torch.isfinite(compared(OutputKind("regression"), dense + 1, dense)[0]).all())


def test_directions_are_compared_relative_to_how_they_vary() -> None:
    """Vectors that all point nearly one way have cosines near 1 with their mean, which yet says nothing."""
    dense = torch.tensor([10.0, 0.0, 0.0]) + torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    divergence, agreement = compared(OutputKind("embedding"), dense.mean(0).expand_as(dense), dense)
    assert agreement.min() > 0.9
    assert divergence.mean() == pytest.approx(1, rel=0.05)
    assert compared(OutputKind("embedding"), 7 * dense, dense)[0].max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_distilled_pulls_towards_the_teacher(kind: str) -> None:
    meaning, teacher = OutputKind(kind), drawn(kind, 1)  # type: ignore[arg-type]
    student = drawn(kind, 2).requires_grad_()
    scale = meaning.scale(meaning.reference(teacher)) if meaning.has_scale else None
    optimiser = torch.optim.Adam([student], lr=0.1)
    losses = []
    for _ in range(150):
        loss = meaning.distillation(student, teacher, scale, temperature=2.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert meaning.distillation(teacher, teacher, scale, temperature=2.0).item() == pytest.approx(0, abs=1e-6)


def test_several_outputs_are_weighed() -> None:
    kinds = (OutputKind("classification", name="a", weight=1), OutputKind("regression", name="b", weight=3))
    values = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 5.0])}
    assert combined(kinds, values).tolist() == [2.5, 4.25]
    left_out = (kinds[0], OutputKind("regression", name="b", weight=0))
    assert combined(left_out, {"a": values["a"]}).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "message"), [({"kind": "ranking"}, "kind must be classification, "), ({"weight": -1}, "at least 0")]
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutputKind(**{"kind": "regression", **settings})  # type: ignore[arg-type]


def test_weights_must_be_numbers() -> None:
    with pytest.raises(ValueError, match="nan"):
        OutputKind("regression", weight=math.nan)
