"""Networks that end their own graph of derivatives, or write over it, are pruned like those that do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from tests.models import random_ranking


def without_gradients(network: "Body", x: Tensor) -> Tensor:
    with torch.no_grad():
        return network.body(x)


def inferred(network: "Body", x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.body(x)


def detached(network: "Body", x: Tensor) -> Tensor:
    return F.relu(network.b(F.relu(network.a(x)).detach())).data


def through_numpy(network: "Body", x: Tensor) -> Tensor:
    h = network.body(x)
    return h * float(h.detach().numpy().shape[0])


def checkpointed(network: "Body", x: Tensor) -> Tensor:
    return checkpoint(lambda x: F.relu(network.b(x)), F.relu(network.a(x)), use_reentrant=False)  # type: ignore[no-any-return]


def checkpointed_again(network: "Body", x: Tensor) -> Tensor:
    return checkpoint(network.body, x, use_reentrant=True)  # type: ignore[no-any-return]


def written_over(network: "Body", x: Tensor) -> Tensor:
    h = network.body(x).sigmoid()
    h[..., 0:2] = h[..., 0:2] * 2 - 0.5
    h[..., 0:2] += h[..., 2:4] ** 2
    return h


def rounded(network: "Body", x: Tensor) -> Tensor:
    return torch.round(8 * F.relu(network.b(torch.floor(8 * network.a(x)) / 8))) / 8


def dropped(network: "Body", x: Tensor) -> Tensor:
    """The last sum of a chain of residual blocks is computed, and nobody reads it."""
    h = F.relu(network.a(x))
    _ = h + network.left_over(h)
    return F.relu(network.b(h))


class Body(nn.Module):
    """Two layers that one of these functions calls, and two that read them."""

    def __init__(self, how: Callable[["Body", Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.a, self.b, self.left_over = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 16, 3), nn.Conv2d(12, 12, 1)
        self.neck, self.out = nn.Linear(16, 10), nn.Linear(10, 3)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.neck(self.how(self, x).mean((2, 3)))))  # type: ignore[no-any-return]


WAYS = (
    without_gradients, inferred, detached, through_numpy, checkpointed, checkpointed_again, written_over, rounded,
    dropped,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("how", WAYS)
def test_what_ends_derivatives_hides_no_groups(how: Callable[[Body, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, x = Body(how).eval(), torch.rand(1, 3, 9, 9)
    structure = find_structure(network, x)
    assert structure.names == ("a", "b", "neck")
    ranking, plan = random_ranking(structure, seed=0), structure.plan(structure.units // 2)
    with torch.no_grad(), masked(network, structure, plan, ranking):
        outputs = network(x).clone()
    assert torch.allclose(shrink(network, structure, plan, ranking)(x), outputs, atol=1e-5)
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_torch_is_as_before() -> None:
    x = torch.rand(2, requires_grad=True)
    find_structure(Body(checkpointed_again).eval(), torch.rand(1, 3, 9, 9))
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()
        assert (x * 1).is_inference()
    runs: list[int] = []
    checkpoint(lambda x: runs.append(0) or x.sin(), x, use_reentrant=True).sum().backward()
    assert len(runs) == 2


class EveryOther(nn.Module):
    """Units at even places are scaled: which ones these are changes with every unit that goes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 16), nn.Linear(16, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).sigmoid()
        h[:, ::2] *= 2
        return self.out(F.relu(self.b(h)))  # type: ignore[no-any-return]


def test_units_behind_silent_ones_are_tried_all_the_same() -> None:
    for seed in range(8):  # with some of them the few units of b that are tried together are silent
        torch.manual_seed(seed)
        structure = find_structure(EveryOther().eval(), torch.rand(1, 4))
        assert structure.names == ("b",)
        assert structure.unprunable["a"].startswith("removing its units differs from masking them")


class Noisy(nn.Module):
    """Draws random numbers in eval mode, as many as there are units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 12), nn.Linear(12, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        h = h + 0.1 * torch.randn_like(h) * torch.bernoulli(torch.full_like(h, 0.5))
        return self.out(F.dropout(F.relu(self.b(h)), 0.3, training=True))  # type: ignore[no-any-return]


def test_random_numbers_do_not_keep_units_from_going() -> None:
    torch.manual_seed(0)
    network, x = Noisy().eval(), torch.rand(1, 4)
    structure = find_structure(network, x)
    assert structure.names == ("a", "b")
    small = shrink(network, structure, structure.plan(structure.units // 2), random_ranking(structure, seed=0))
    assert small(x).shape == (1, 2)
    assert not torch.equal(small(x), small(x))


class Broadcasting(nn.Module):
    """A layer of which one unit left would be added to all that its units should have met."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h + torch.tensor(self.b(x).tolist())
        return self.out(F.relu(self.c(h)))


def test_one_unit_that_is_broadcast_is_no_proof() -> None:
    """What goes through NumPy is not seen to meet; only the trial can tell, and one unit of six runs."""
    for seed in range(6):
        torch.manual_seed(seed)
        structure = find_structure(Broadcasting().eval(), torch.rand(1, 4))
        assert structure.names == ("c",)


def test_names_may_hold_what_separates_names() -> None:
    network = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"a/b": network[0], "out": network[2]})
            self.register_parameter("scale/x", nn.Parameter(torch.ones(12)))

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["out"](F.relu(self.parts["a/b"](x)) * self._parameters["scale/x"])  # type: ignore[no-any-return]

    structure = find_structure(Named().eval(), torch.rand(1, 4))
    assert {(m.layer, m.axis) for m in structure.groups[0].members} >= {("parts.a/b", "out"), ("", "scale/x/0")}
