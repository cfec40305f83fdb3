"""Small networks, one for each way in which layers are coupled. Every invariant is tested on those in `PRUNABLE`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.cost.observed import NetworkCosts
from autoprune.plan import PruningPlan
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task import networks
from autoprune.task.task import Role

CLASSES = 5


@dataclass(frozen=True)
class Network:
    """A small network and the shape of one sample."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 8, 8)

    def model(self, *, seed: int = 0) -> nn.Module:
        """In eval mode, with random weights and random BatchNorm scales, shifts and statistics."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build().eval()
            for layer in model.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.running_mean.normal_(0, 0.3)
                    layer.running_var.uniform_(0.5, 2)
                    if layer.affine:
                        nn.init.uniform_(layer.weight, 0.5, 1.5)
                        nn.init.normal_(layer.bias, 0, 0.3)
                if isinstance(layer, nn.PReLU):
                    nn.init.uniform_(layer.weight, 0.1, 0.4)
        return model

    def structure(self) -> Structure:
        """Found once: it depends on the architecture only."""
        return _structure(self)

    def costs(self) -> NetworkCosts:
        """Counted once, as costs depend on the architecture only."""
        return _costs(self)

    def inputs(self, samples: int = 1, *, seed: int = 1) -> Tensor:
        return torch.randn(samples, *self.shape, generator=torch.Generator().manual_seed(seed))

    def role(self, samples: int = 24, *, seed: int = 2) -> Role:
        targets = torch.randint(CLASSES, (samples,), generator=torch.Generator().manual_seed(seed))
        return Role(self.inputs(samples, seed=seed), targets)


@cache
def _structure(network: Network) -> Structure:
    return find_structure(network.model(), network.inputs())


@cache
def _costs(network: Network) -> NetworkCosts:
    return NetworkCosts(network.model(), network.structure(), network.inputs())


class Residual(nn.Module):
    """conv1, conv3 and the shortcut write one stream; conv2 stands inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x))))))
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """DenseNet-like: each layer normalises the concatenation of all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(10), nn.Conv2d(10, 4, 3, padding=1)
        self.bn3, self.fc = nn.BatchNorm2d(14), nn.Linear(14, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.bn1(x)))], 1)
        x = torch.cat([x, self.conv2(F.relu(self.bn2(x)))], 1)
        return self.fc(F.relu(self.bn3(x)).mean((2, 3)))


class Separable(nn.Module):
    """A depthwise convolution between two pointwise ones, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.project, self.bn3 = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn2(self.depthwise(F.relu6(self.bn1(self.expand(x))))))
        return self.fc(F.relu(self.bn3(self.project(x))).mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt-like: a grouped convolution in a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.relu(x + self.bn3(self.conv3(y))).mean((2, 3)))


class SharedLayer(nn.Module):
    """`twice` runs two times, so its weights count once among the parameters and twice among the MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 7, 3)
        self.fc = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(F.relu(self.twice(F.relu(self.stem(x)))))
        return self.fc(F.relu(self.last(F.relu(x))).mean((2, 3)))


class TwoOutputs(nn.Module):
    """Two convolutions write outputs: `logits`, which are judged, and `features`, which are handed out beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.features, self.logits = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, CLASSES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(F.relu(self.conv(x)))
        return self.logits(F.relu(features)).mean((2, 3)), features


class Tokens(nn.Module):
    """Linear layers that run once for each of several tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


class SoftmaxOverChannels(nn.Module):
    """Attention over channels: the softmax of a smaller network isn't the masked one's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(torch.softmax(self.conv1(x), 1)))
        return self.fc(x.mean((2, 3)))


class Untraceable(nn.Module):
    """Leaves torch in the middle, so nobody can follow its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, CLASSES, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.from_numpy(self.conv1(x).detach().numpy())
        return self.conv2(x).mean((2, 3))


def plain() -> nn.Module:
    """What a user might write first."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(10, CLASSES),
    )  # fmt: skip


def flattened() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 12), nn.ReLU(),
        nn.Dropout(), nn.Linear(12, CLASSES),
    )  # fmt: skip


def prelu() -> nn.Module:
    """One PReLU with a slope per channel, one with a slope for all."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, CLASSES),
    )  # fmt: skip


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 5), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 14, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, CLASSES),
    )  # fmt: skip


def bn_without_affine() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def layer_norm() -> nn.Module:
    """The first layer's outputs are normalised together, the second's are not."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, CLASSES)
    )


def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


PRUNABLE = {
    "residual": Network(Residual),
    "dense": Network(Dense),
    "separable": Network(Separable),
    "grouped": Network(Grouped),
    "plain": Network(plain),
    "flattened": Network(flattened),
    "prelu": Network(prelu),
    "conv1d": Network(conv1d, (2, 20)),
    "bn_without_affine": Network(bn_without_affine),
    "tokens": Network(Tokens, (7, 6)),
    "layer_norm": Network(layer_norm, (6,)),
    "softmax": Network(SoftmaxOverChannels),
    "shared_layer": Network(SharedLayer),
    "digits_net": Network(networks.digits_net, (1, 8, 8)),
}


def random_plan(structure: Structure, *, seed: int) -> PruningPlan:
    """One of the allowed levels for every group, at random."""
    rng = np.random.default_rng(seed)
    return structure.plan(np.array([rng.choice(group.levels) for group in structure.groups]))


def random_ranking(structure: Structure, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {layer.name: (layer.outputs, layer.inputs) for layer in structure.layers}
    ranking = {}
    for group in structure.groups:
        ranking[group.name] = torch.randperm(group.units, generator=generator)
        for matrix in group.compared:  # the place of every weight among those that it is compared with
            order = torch.rand(sizes[matrix.layer], generator=generator).unflatten(1, (-1, matrix.size)).argsort(-1)
            ranking[group.name] = order.argsort(-1).flatten(1).short()
    return ranking
