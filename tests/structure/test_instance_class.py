"""A mixin before a module's own class: made once, copied, pickled, and taken off again."""

import copy
import pickle

import pytest
import torch
from torch import nn

from autoprune.structure.instance_class import InstanceClass, class_with, class_without


class Doubling(InstanceClass):
    """Returns twice what the module returns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)  # type: ignore[misc]


class Adding(InstanceClass):
    """Returns one more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 + super().forward(x)  # type: ignore[misc]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_compute_the_same_and_are_of_one_class(again: object) -> None:
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    plain = module(x)
    for mixin in (Doubling, Adding):
        module.__class__ = class_with(mixin, type(module))
    twin = again(module)  # type: ignore[operator]
    assert type(twin) is type(module)
    assert type(module).__name__ == "Linear"
    assert isinstance(module, nn.Linear)
    assert torch.equal(twin(x), 1 + 2 * plain)


def test_a_mixin_goes_wherever_it_stands_and_others_stay() -> None:
    both = class_with(Adding, class_with(Doubling, nn.Linear))
    assert class_without(Doubling, both) is class_with(Adding, nn.Linear)
    assert class_without(Adding, both) is class_with(Doubling, nn.Linear)
    assert class_without(InstanceClass, both) is nn.Linear
    assert class_without(Adding, nn.Linear) is nn.Linear
