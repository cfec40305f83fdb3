"""The tasks that come with autoprune. Each is a function without required arguments; conf/task names them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.machine_cache import cache_dir
from autoprune.task import networks, tabular
from autoprune.task.fashion_mnist import fashion_subset
from autoprune.task.task import Architecture, Role, Roles, Task
from autoprune.task.training import fit, flip
from autoprune.task.weights import load_weights, save_weights

ZOO = Path(__file__).parent.parent / "zoo"


def digits() -> Task:
    """scikit-learn's 8×8 digits and a tiny network, trained on first use in seconds and cached."""
    with torch.random.fork_rng():  # initial weights come from torch's global generator; the caller's is left alone
        torch.manual_seed(0)
        model = networks.digits_net()
    data = digits_roles()
    weights = cache_dir() / "digits_net.safetensors"
    if not weights.exists():
        _train_digits(model, data.train)
        save_weights(model, weights)
    return Task(
        load_weights(model, weights),
        data.train.inputs[:1],
        data,
        name="digits",
        budget="macs:0.35",
        architecture=Architecture("autoprune.task.networks.digits_net"),
    )


def fashion_resnet20() -> Task:
    """ResNet-20 on Fashion-MNIST: residual streams, twelve groups."""
    return _fashion("fashion_resnet20", networks.resnet20, budget="macs:0.15")


def fashion_plain20() -> Task:
    """ResNet-20 without skips on Fashion-MNIST: nineteen groups, where allocation matters most."""
    return _fashion("fashion_plain20", networks.plain20, budget="macs:0.5")


def fashion_mobilenet() -> Task:
    """MobileNetV1 ×0.5 on Fashion-MNIST: depthwise convolutions, fourteen groups."""
    return _fashion("fashion_mobilenet", networks.mobilenet_v1, budget="macs:0.35")


SHIPPED: Mapping[str, Callable[[], Task]] = {
    "digits": digits,
    "fashion_resnet20": fashion_resnet20,
    "fashion_plain20": fashion_plain20,
    "fashion_mobilenet": fashion_mobilenet,
    "table_residual": partial(tabular.table_residual, table=tabular.SHIPPED_TABLE),
    "table_plain": partial(tabular.table_plain, table=tabular.SHIPPED_TABLE),
}


def shipped_task(name: str) -> Task:
    """The shipped task of that name."""
    if name not in SHIPPED:
        raise ValueError(f"there is no shipped task {name!r}; there are {list(SHIPPED)}, or pass an autoprune.Task")
    return SHIPPED[name]()


def _fashion(name: str, build: Callable[[], nn.Module], *, budget: str) -> Task:
    data = fashion_subset()
    return Task(
        load_weights(build(), ZOO / f"{build.__name__}.safetensors"),
        data.calibration.inputs[:1],
        data,
        name=name,
        budget=budget,
        augment=flip,
        architecture=Architecture(f"{build.__module__}.{build.__name__}"),
    )


def digits_roles() -> Roles:
    """scikit-learn's 8×8 digits as four roles."""
    from sklearn.datasets import load_digits  # slow to import, and only this task needs it

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1  # pixels 0..16 → [-1, 1]
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    sizes = {"train": 897, "calibration": 200, "search": 350, "test": 350}
    parts = order.split(list(sizes.values()))
    return Roles(
        **{
            role: Role(images[rows], labels[rows], tuple(f"digits:{i}" for i in rows.tolist()))
            for role, rows in zip(sizes, parts, strict=True)
        }
    )


def _train_digits(model: nn.Module, train: Role) -> None:
    generator = torch.Generator().manual_seed(0)
    fit(model, train, loss=_cross_entropy, steps=280, learning_rate=0.05, batch_size=64, generator=generator)


def _cross_entropy(outputs: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)
