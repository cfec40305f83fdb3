import math

import pytest
import torch
from torch import Tensor, nn

from autoprune.recover import distillation
from autoprune.recover.distillation import teacher_outputs
from autoprune.task.outputs import OutputKind
from autoprune.task.task import plain_forward
from autoprune.task.training import flip


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """That of a classifier, or of a language model."""
    kind = OutputKind("classification", axis=-1)
    return kind.distillation(student, teacher, None, temperature=temperature)


class Counter:
    """One number that the copies of a network share."""

    count = 0

    def __deepcopy__(self, memo: object) -> "Counter":
        return self


class CountingTeacher(nn.Module):
    """Logits that depend on every pixel's place; counts the samples that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.seen = Counter()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.count += len(x)
        return self.linear(x.flatten(1))  # type: ignore[no-any-return]


def images(count: int = 20) -> Tensor:
    return torch.randn(count, 1, 3, 4, generator=torch.Generator().manual_seed(0))


def shift(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs.roll(1, -1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equal_logits_cost_nothing(temperature: float) -> None:
    logits = torch.randn(5, 10)
    assert distillation_loss(logits, logits.clone(), temperature=temperature).item() == 0


def test_known_value() -> None:
    """Student undecided, teacher (3/4, 1/4) after T = 2: T² · KL = 4 · (¾ log(¾ · 2) + ¼ log(¼ · 2))."""
    teacher = 2 * torch.tensor([[math.log(3.0), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distillation_loss(torch.zeros(1, 2), teacher, temperature=2.0).item() == pytest.approx(expected)


def test_the_mean_is_over_samples() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    each = [distillation_loss(student[i : i + 1], teacher[i : i + 1], temperature=3.0) for i in range(4)]
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=3.0), torch.stack(each).mean())


def test_the_mean_is_over_positions_too() -> None:
    """[windows, positions, vocabulary] is judged as that many samples with one position each."""
    student, teacher = torch.randn(4, 5, 7), torch.randn(4, 5, 7)
    flat = distillation_loss(student.flatten(0, 1), teacher.flatten(0, 1), temperature=2.0)
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=2.0), flat)


@pytest.mark.parametrize(("augment", "epochs"), [(None, 5), (flip, 5), (flip, 1), (shift, 5)])
def test_lessons_are_what_the_teacher_says_of_what_the_student_sees(augment, epochs) -> None:  # type: ignore[no-untyped-def]
    teacher, inputs = CountingTeacher(), images()
    taught = teacher_outputs(teacher, inputs, augment=augment, epochs=epochs, forward=plain_forward, bf16=False)
    rows = torch.randperm(len(inputs))[:7]
    seen = inputs[rows] if augment is None else augment(inputs[rows], torch.Generator().manual_seed(3))
    torch.testing.assert_close(taught(seen, rows), teacher(seen))


def test_mirrored_samples_are_told_apart() -> None:
    teacher, inputs = CountingTeacher(), images()
    taught = teacher_outputs(teacher, inputs, augment=flip, epochs=5, forward=plain_forward, bf16=False)
    rows = torch.arange(len(inputs))
    assert not torch.allclose(taught(inputs, rows), taught(inputs.flip(-1), rows))


def test_the_teacher_sees_each_view_once_however_long_the_training() -> None:
    teacher, inputs = CountingTeacher(), images()
    taught = teacher_outputs(teacher, inputs, augment=flip, epochs=5, forward=plain_forward, bf16=False)
    for _ in range(10):
        taught(inputs, torch.arange(len(inputs)))
    assert teacher.seen.count == 1 + 2 * len(inputs)  # the first one to see how big its outputs are


def test_outputs_too_big_to_be_kept_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 samples of 3 logits of 4 bytes are 240 bytes."""
    inputs, rows = images(), torch.arange(20)
    for memory, asked in ((240, 1 + 20), (239, 1 + 3 * 20)):
        teacher = CountingTeacher().eval()
        monkeypatch.setattr(distillation, "MEMORY", memory)
        taught = teacher_outputs(teacher, inputs, augment=None, epochs=5, forward=plain_forward, bf16=False)
        for _ in range(3):
            torch.testing.assert_close(taught(inputs, rows), teacher.linear(inputs.flatten(1)))
        assert teacher.seen.count == asked


def test_the_task_says_how_the_teacher_is_called() -> None:
    teacher, inputs = CountingTeacher(), images()
    doubled = teacher_outputs(
        teacher, inputs, augment=None, epochs=5, bf16=False, forward=lambda network, x: 2 * plain_forward(network, x)
    )
    torch.testing.assert_close(doubled(inputs[:3], torch.arange(3)), 2 * teacher(inputs[:3]))


def test_the_teacher_itself_is_left_alone() -> None:
    teacher = CountingTeacher().train()
    teacher_outputs(teacher, images(), augment=None, epochs=5, forward=plain_forward, bf16=False)
    assert teacher.training


def test_lessons_can_be_trained_on() -> None:
    """Inference tensors could not be saved for the backward pass."""
    teacher, inputs = CountingTeacher(), images()
    for augment in (None, flip, shift):
        said = torch.randn(len(inputs), 3, requires_grad=True)
        known = teacher_outputs(teacher, inputs, augment=augment, epochs=5, forward=plain_forward, bf16=False)(
            inputs, torch.arange(len(inputs))
        )
        distillation_loss(said, known, temperature=2.0).backward()
        assert said.grad is not None
        assert not known.requires_grad
