"""LeCun's two networks, as pruning papers have them, on Fashion-MNIST; trained on first use in about a minute."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.machine_cache import cache_dir
from autoprune.ranges import Count, Seed
from autoprune.task.fashion_mnist import fashion_subset
from autoprune.task.task import Architecture, Roles, Task
from autoprune.task.training import fit
from autoprune.task.weights import load_weights, save_weights


def lenet_300_100_net(*, classes: int = 10) -> nn.Module:
    """Returns LeNet-300-100 for 28×28 images: 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )


def lenet_5_net(*, classes: int = 10) -> nn.Module:
    """Returns LeNet-5 of Caffe's shape, as in Deep Compression, for 28×28 images: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes),
    )  # fmt: skip


def lenet_300_100(*, roles: Roles | None = None, steps: Count = 3000, seed: Seed = 0) -> Task:
    """Returns the task of LeNet-300-100.

    Args:
        roles: Data of 28×28 images; None: the shipped subset of Fashion-MNIST.
        steps: Of training, 128 images each.
        seed: Of initial weights and the images' order.
    """
    return _trained("lenet_300_100", lenet_300_100_net, roles, steps=steps, seed=seed)


def lenet_5(*, roles: Roles | None = None, steps: Count = 3000, seed: Seed = 0) -> Task:
    """Returns the task of LeNet-5.

    Args:
        roles: Data of 28×28 images; None: the shipped subset of Fashion-MNIST.
        steps: Of training, 128 images each.
        seed: Of initial weights and the images' order.
    """
    return _trained("lenet_5", lenet_5_net, roles, steps=steps, seed=seed)


LENETS: Mapping[str, Callable[..., Task]] = {"lenet_300_100": lenet_300_100, "lenet_5": lenet_5}


def _trained(name: str, build: Callable[[], nn.Module], roles: Roles | None, *, steps: int, seed: int) -> Task:
    data = fashion_subset() if roles is None else roles
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    weights = cache_dir() / f"{name}_{_key(data, steps, seed)}.safetensors"
    if not weights.exists():
        fit(
            model,
            data.train,
            loss=_cross_entropy,
            steps=steps,
            learning_rate=0.001,
            weight_decay=1e-4,
            optimizer="adamw",
            generator=torch.Generator().manual_seed(seed),
        )
        save_weights(model, Path(weights))
    return Task(
        load_weights(model, Path(weights)).eval(),
        data.calibration.inputs[:1],
        data,
        name=name,
        budget="macs:0.35",
        architecture=Architecture(f"{build.__module__}.{build.__name__}"),
    )


def _key(data: Roles, steps: int, seed: int) -> str:
    return hashlib.sha256(json.dumps([data.train.digest, steps, seed]).encode()).hexdigest()[:12]


def _cross_entropy(outputs: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)
