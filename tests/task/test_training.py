import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.task.task import Role, accuracy
from autoprune.task.training import fit, flip
from tests.models import PRUNABLE

NETWORK = PRUNABLE["flattened"]


def cross_entropy(outputs: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def learnable() -> Role:
    """The class is the row that is bright."""
    samples = NETWORK.role(160)
    inputs = samples.inputs.clone()
    inputs[torch.arange(160), :, samples.targets + 1] += 4
    return Role(inputs, samples.targets)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_network_learns_and_ends_in_eval_mode() -> None:
    model, role = NETWORK.model(), learnable()
    before = accuracy(model(role.inputs), role.targets)
    losses: list[float] = []
    fit(
        model, role, loss=cross_entropy, steps=80, learning_rate=0.02, batch_size=16, generator=generator(),
        on_step=lambda step, steps, value: losses.append(value),
    )  # fmt: skip
    assert accuracy(model(role.inputs), role.targets) > before + 0.5
    assert len(losses) == 80
    assert not any(module.training for module in model.modules())


def test_the_same_seed_trains_the_same_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        model = PRUNABLE["plain"].model()  # without dropout, whose draws are not the generator's
        fit(
            model, learnable(), loss=cross_entropy, steps=5, learning_rate=0.1, batch_size=32, generator=generator(seed)
        )
        weights.append(model[0].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_role_smaller_than_a_batch_is_one_batch() -> None:
    steps = []
    fit(
        NETWORK.model(), learnable()[:3], loss=cross_entropy, steps=3, learning_rate=0.01, batch_size=64,
        generator=generator(), on_step=lambda step, total, _: steps.append((step, total)),
    )  # fmt: skip
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(FloatingPointError, match="the training loss is nan at step 0 of 3; lower the learning rate"):
        fit(
            NETWORK.model(), learnable(), loss=lambda outputs, *_: outputs.sum() * torch.nan, steps=3,
            learning_rate=0.1, batch_size=16, generator=generator(),
        )  # fmt: skip


def test_flipping_mirrors_about_half_of_the_images() -> None:
    inputs = torch.arange(400 * 2 * 3, dtype=torch.float32).view(400, 1, 2, 3)
    flipped = flip(inputs, generator())
    mirrored = (flipped == inputs.flip(-1)).flatten(1).all(1)
    assert ((flipped == inputs).flatten(1).all(1) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
