"""What cannot go well is refused where the task is made, in one sentence that names it."""

import pytest
import torch
from torch import Tensor, nn

from autoprune.task.task import Role, Roles, Task


def pile() -> Roles:
    return Roles.split(torch.randn(40, 3), torch.arange(40) % 4)


@pytest.mark.parametrize("value", [{"f1": 0.5}, [0.5, 0.25], None, torch.zeros(4)])
def test_a_metric_that_is_no_number_is_refused_before_anything_is_judged(value: object) -> None:
    with pytest.raises(ValueError, match=f"metric must return one number, and returned a {type(value).__name__};"):
        Task(nn.Linear(3, 4), torch.zeros(1, 3), pile(), metric=lambda o, y: value)  # type: ignore[arg-type,return-value]


def test_an_attribute_that_no_copy_can_have_is_named() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))
    network[1].seen = (x for x in range(3))  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"cannot be copied.*take model\.1\.seen, a generator, off it"):
        Task(network, torch.zeros(1, 3), pile())
    del network[1].seen
    Task(network, torch.zeros(1, 3), pile())


def test_an_augmentation_that_fails_is_named_for_one() -> None:
    def flipped(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs.flip(3)

    with pytest.raises(ValueError, match=r"task\.augment is called with .* IndexError"):
        Task(nn.Linear(3, 4), torch.zeros(1, 3), pile(), augment=flipped)


class Chosen(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class Triplet(nn.Linear):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat([super(Triplet, self).forward(part) for part in parts], dim=1)


def test_answers_that_are_chosen_already_are_refused() -> None:
    with pytest.raises(TypeError, match="returns int64 numbers, as of an argmax"):
        Task(Chosen(3, 4), torch.zeros(1, 3), pile())


@pytest.mark.parametrize("number", [2, 3])
def test_inputs_that_were_taken_for_targets_are_told_of(number: int) -> None:
    parts = tuple(torch.randn(40, 3) + part for part in range(number))
    example = tuple(part[:1] for part in parts)
    with pytest.raises(ValueError, match=r"the last part is its targets, and Role\(\(…\)\) takes all"):
        Task(Triplet(3, 4), example, Roles.split(parts))
    task = Task(Triplet(3, 4), example, Roles.split(Role(parts)), kind="embedding")
    assert not task.trained
