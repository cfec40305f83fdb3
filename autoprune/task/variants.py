"""Small networks of many shapes, each trained on first use in seconds: what transferable policies learn from."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.machine_cache import cache_dir
from autoprune.ranges import Natural, checked
from autoprune.task.fashion_mnist import fashion_subset
from autoprune.task.networks import SeparableBlock
from autoprune.task.shipped import digits_roles
from autoprune.task.tabular import UnevenBlock
from autoprune.task.task import Architecture, Roles, Task
from autoprune.task.training import fit, flip
from autoprune.task.weights import load_weights, save_weights

Family = Literal["plain", "residual", "depthwise", "dense"]
Images = Literal["digits", "fashion"]

CLASSES = 10
RECIPES: Mapping[str, tuple[int, float]] = {"digits": (300, 0.05), "fashion": (240, 0.1)}  # steps, learning rate of SGD
WITHOUT_NORM = (900, 0.002)  # of AdamW, for linear layers alone
BATCH = 96
SEARCHED = 900  # images of the search role: small networks are judged often
REVISION = 1  # raised when the same family and number would be another network


@checked
def variant(*, family: Family, number: Natural, images: Images) -> Task:
    """The `number`-th network of a family, on 8×8 digits or Fashion-MNIST.

    Depth, widths and strides are drawn from the number. It is trained when it is asked for first, and cached.

    Args:
        family: Plain (convolutions in a row), residual, depthwise (separable convolutions) or dense (linear layers
            alone).
        number: Which variant.
        images: "digits" or "fashion".

    Raises:
        ValueError: An unknown family, number or kind of images.
    """
    model = variant_network(family=family, number=number, images=images)
    data = DATA[images]()
    name = f"{images}_{family}_{number}"
    weights = cache_dir() / "variants" / f"{name}_{REVISION}.safetensors"
    if not weights.exists():
        _train(model, data, family=family, number=number, images=images)
        save_weights(model, weights)
    return Task(
        load_weights(model, weights),
        data.calibration.inputs[:1],
        data,
        name=name,
        budget="macs:0.35",
        augment=flip if images == "fashion" else None,
        architecture=Architecture(
            f"{__name__}.{variant_network.__name__}", {"family": family, "number": number, "images": images}
        ),
    )


@checked
def variant_network(*, family: Family, number: Natural, images: Images) -> nn.Module:
    """The same network, untrained; equal arguments give equal weights.

    Args:
        family: As of `variant`.
        number: Which variant.
        images: "digits" or "fashion".
    """
    rng = np.random.default_rng([list(get_args(Family)).index(family), number])
    side = 8 if images == "digits" else 14  # of the images behind the stem
    with torch.random.fork_rng(devices=[]):  # initial weights come from torch's global generator
        torch.manual_seed(number)
        return FAMILIES[family](rng, side=side, stride=1 if images == "digits" else 2)


def _train(model: nn.Module, data: Roles, *, family: str, number: int, images: str) -> None:
    steps, learning_rate = WITHOUT_NORM if family == "dense" else RECIPES[images]
    fit(
        model,
        data.train,
        loss=lambda outputs, _, targets: F.cross_entropy(outputs, targets),
        steps=steps,
        learning_rate=learning_rate,
        batch_size=BATCH,
        optimizer="adamw" if family == "dense" else "sgd",
        generator=torch.Generator().manual_seed(number),
        augment=flip if images == "fashion" else None,
    )


def _fashion_roles() -> Roles:
    roles = fashion_subset()
    return replace(roles, search=roles.search[:SEARCHED])


DATA: Mapping[str, Callable[[], Roles]] = {"digits": digits_roles, "fashion": _fashion_roles}


class LayerChain(nn.Module):
    """Blocks one after the other, global average pool, classifier."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def _plain(rng: np.random.Generator, *, side: int, stride: int) -> nn.Module:
    depth = int(rng.integers(4, 15))
    widths, strides = _widths(rng, depth), [stride, *_strides(rng, depth - 1, side)]
    ends = zip(pairwise([1, *widths]), strides, strict=True)
    return LayerChain([part for (before, after), step in ends for part in _conv(before, after, step)], widths[-1])


def _residual(rng: np.random.Generator, *, side: int, stride: int) -> nn.Module:
    depth = int(rng.integers(2, 8))
    strides = _strides(rng, depth, side)
    width = int(rng.integers(8, 25))
    blocks: list[nn.Module] = _conv(1, width, stride)
    for step in strides:
        # streams change their width where images change their size, as in He et al. (arXiv 1512.03385), or now and then
        after = int(width * rng.uniform(1.2, 2.0)) if step > 1 or rng.random() < 0.15 else width
        blocks.append(UnevenBlock(width, int(after * np.exp(rng.uniform(-0.7, 0.9))), after, step))
        width = after
    return LayerChain(blocks, width)


def _depthwise(rng: np.random.Generator, *, side: int, stride: int) -> nn.Module:
    depth = int(rng.integers(3, 12))
    widths, strides = _widths(rng, depth + 1), _strides(rng, depth, side)
    blocks: list[nn.Module] = _conv(1, widths[0], stride)
    blocks += [SeparableBlock(*ends, step) for ends, step in zip(pairwise(widths), strides, strict=True)]
    return LayerChain(blocks, widths[-1])


def _dense(rng: np.random.Generator, *, side: int, stride: int) -> nn.Module:
    widths = [(side * stride) ** 2, *(int(w) for w in np.exp(rng.uniform(3.2, 4.9, int(rng.integers(2, 7)))))]
    hidden = [part for ends in pairwise(widths) for part in (nn.Linear(*ends), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], CLASSES))


FAMILIES: Mapping[str, Callable[..., nn.Module]] = {
    "plain": _plain,
    "residual": _residual,
    "depthwise": _depthwise,
    "dense": _dense,
}


def _conv(before: int, after: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]


def _widths(rng: np.random.Generator, layers: int) -> list[int]:
    """Growing on average, as widths do, and uneven."""
    growth = np.linspace(2.3, rng.uniform(2.8, 3.9), layers)
    return [max(6, int(width)) for width in np.exp(growth + rng.normal(0, rng.uniform(0.05, 0.5), layers))]


def _strides(rng: np.random.Generator, layers: int, side: int) -> list[int]:
    """2 at a few layers, 1 elsewhere; images stay at least 2 wide."""
    halvings = int(rng.integers(1, int(np.log2(side))))
    chosen = rng.permutation(layers)[:halvings]
    return [2 if layer in chosen else 1 for layer in range(layers)]
