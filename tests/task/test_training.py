import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.task import Role, accuracy
from autoprune.task.training import LoopSettings, Optimizer, TrainingLoop, fit, flip, may_be_channels_last
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_seed_trains_the_same_weights(optimizer: Optimizer) -> None:
    weights = []
    for seed, elsewhere in ((0, 0), (0, 1), (1, 0)):
        model = NETWORK.model()  # with dropout
        assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        fit(
            model, learnable(), loss=cross_entropy, steps=5, learning_rate=0.01, batch_size=32, optimizer=optimizer,
            generator=generator(seed),
        )  # fmt: skip
        assert torch.equal(before, torch.get_rng_state())
        weights.append(next(p.detach() for p in model.parameters() if p.ndim > 1))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_parameters_that_need_no_gradient_stay() -> None:
    model = PRUNABLE["plain"].model()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(model, learnable(), loss=cross_entropy, steps=3, learning_rate=0.1, generator=generator(), optimizer="adamw")
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == before.keys() - {"0.weight"}


def test_a_clipped_gradient_is_a_short_step() -> None:
    """Without momentum and decay the first step is learning rate × gradient, which is as long as it may be."""
    role, moved = learnable()[:16], []
    for clip_norm in (None, 1e-3):
        model = PRUNABLE["plain"].model()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        fit(
            model, role, loss=cross_entropy, steps=1, learning_rate=1.0, momentum=0.0, weight_decay=0.0, warmup=0.0,
            clip_norm=clip_norm, generator=generator(),
        )  # fmt: skip
        moved.append((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm().item())
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(1e-3, rel=0.02)


def test_the_network_is_called_as_it_is_said() -> None:
    seen = []

    def forward(network: nn.Module, inputs: Tensor) -> Tensor:
        seen.append(len(inputs))
        outputs: Tensor = network(inputs)
        return outputs

    fit(
        NETWORK.model(), learnable(), loss=cross_entropy, steps=2, learning_rate=0.01, batch_size=20,
        generator=generator(), forward=forward,
    )  # fmt: skip
    assert seen == [20, 20]


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sgd'.*'adamw'.*'lion'"):
        fit(
            NETWORK.model(), learnable(), loss=cross_entropy, steps=2, learning_rate=0.01, generator=generator(),
            optimizer="lion",  # type: ignore[arg-type]
        )  # fmt: skip


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


class Late(nn.Module):
    """Its second layer has no gradient until the third step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(6, 4), nn.Linear(6, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.first(x) + (self.second(x) if self.calls > 2 else 0)


def laid_out(kind: str) -> tuple[nn.Module, Tensor]:
    """A network, and inputs: a late gradient, weights with channels last or gaps in memory, or a sparse gradient."""
    torch.manual_seed(0)
    if kind == "late":
        return Late(), torch.randn(12, 6)
    if kind == "channels last":
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
        return model.to(memory_format=torch.channels_last), torch.randn(12, 3, 5, 5)
    if kind == "sparse":
        return nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(12, 4)), torch.randint(9, (12, 3))
    gaps, turned = nn.Linear(6, 5), nn.Linear(5, 4)
    gaps.weight = nn.Parameter(torch.randn(5, 9)[:, :6])
    turned.weight = nn.Parameter(torch.randn(5, 4).T)
    return nn.Sequential(gaps, turned), torch.randn(12, 6)


@pytest.mark.parametrize(
    ("kind", "optimizer"), [*product(("late", "channels last", "gaps"), ("sgd", "adamw")), ("sparse", "sgd")]
)
def test_steps_are_those_of_an_optimizer_that_is_not_fused(kind: str, optimizer: Optimizer) -> None:
    model, inputs = laid_out(kind)
    plain, role = copy.deepcopy(model), Role(inputs, torch.arange(12) % 4)
    settings = LoopSettings(batch_size=12, optimizer=optimizer, weight_decay=0.0 if kind == "sparse" else 5e-4)
    loop = TrainingLoop(model, role, settings, loss=cross_entropy, generator=generator())
    common = {"lr": 0.05, "weight_decay": settings.weight_decay, "fused": False, "foreach": False}
    other: torch.optim.Optimizer = (
        torch.optim.SGD(plain.parameters(), momentum=0.9, nesterov=True, **common)  # type: ignore[arg-type]
        if optimizer == "sgd"
        else torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.999), **common)  # type: ignore[arg-type]
    )
    for _ in range(6):
        loop.step(0.05)
        other.zero_grad()
        F.cross_entropy(plain(inputs), role.targets).backward()
        other.step()
    for weight, same in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(weight, same, atol=1e-5)


@pytest.mark.parametrize(
    ("narrow", "capability", "last"), [(4, "AVX2", False), (4, "AVX512", True), (8, "AVX2", True), (4, "DEFAULT", True)]
)
def test_layouts_in_which_gradients_of_narrow_shortcuts_go_wrong_are_left_out(
    narrow: int, capability: str, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN's kernel for AVX2 wrote past its memory or never ended, at any number of threads."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    network: Any = nn.Sequential(
        nn.Conv2d(1, narrow, 3), nn.Conv2d(narrow, 8, 1, stride=2), nn.Flatten(), nn.Linear(32, 4)
    )
    assert may_be_channels_last(network) is last
    if last:  # the other layout is safe everywhere, and is trained in
        return
    reference = copy.deepcopy(network)
    network = network.to(memory_format=torch.channels_last)
    seen = list[tuple[int, ...]]()
    network[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].stride()))
    images = torch.randn(64, 6, 6, 1).permute(0, 3, 1, 2)  # as images come from files
    role = Role(images, torch.arange(64) % 4)
    loop = TrainingLoop(network, role, LoopSettings(batch_size=64), loss=cross_entropy, generator=generator())
    loop.backward(images, role.targets)
    F.cross_entropy(reference(images.clone(memory_format=torch.contiguous_format)), role.targets).backward()
    assert seen == [(narrow * 16, 16, 4, 1)]
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
