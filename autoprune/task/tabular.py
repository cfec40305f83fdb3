"""The tasks of the tabular benchmark: two small networks, uneven on purpose, of which every plan was judged once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.fashion_mnist import fashion_subset
from autoprune.task.networks import BasicBlock
from autoprune.task.task import Architecture, Task
from autoprune.task.training import flip
from autoprune.task.weights import load_weights

ZOO = Path(__file__).parent.parent / "zoo"
LEVELS = 6  # numbers of units that each of the six groups may keep
SHIPPED_TABLE = "shipped"
SEARCH_SAMPLES, PROXY_SAMPLES = 2_000, 500  # the others are held out


def table_residual(*, table: str | None) -> Task:
    """A residual network on Fashion-MNIST: three streams and what is between them, six groups of six levels.

    table: "shipped", the path of another table's file, or None to judge live.
    """
    return _task("table_residual", uneven_residual, table=table)


def table_plain(*, table: str | None) -> Task:
    """Six convolutions in a row on Fashion-MNIST, wide and narrow by turns: six groups of six levels.

    table: "shipped", the path of another table's file, or None to judge live.
    """
    return _task("table_plain", uneven_plain, table=table)


def uneven_residual() -> nn.Module:
    """A residual network of three blocks, whose streams are narrow and whose blocks are wide inside."""
    return UnevenResidual(streams=(12, 18, 30), inside=(36, 60, 12))


def uneven_plain() -> nn.Module:
    """A row of convolutions, wide and narrow by turns."""
    return UnevenPlain(widths=(36, 12, 48, 12, 48, 24), strides=(2, 1, 2, 1, 2, 1))


def _task(name: str, build: Callable[[], nn.Module], *, table: str | None) -> Task:
    data = fashion_subset()
    file = ZOO / f"{name}.npz" if table == SHIPPED_TABLE else None if table is None else Path(table)
    return Task(
        load_weights(build(), ZOO / f"{name}.safetensors"),
        data.calibration.inputs[:1],
        replace(data, search=data.search[:SEARCH_SAMPLES]),
        name=name,
        budget="macs:0.5",  # where single-group curves do not find the optimum
        augment=flip,
        architecture=Architecture(f"{build.__module__}.{build.__name__}"),
        levels=LEVELS,
        proxy_samples=PROXY_SAMPLES,
        table=file,
    )


class UnevenResidual(nn.Module):
    """Stem of stride 2, three residual blocks (14×14, 7×7, 4×4), global average pool, classifier."""

    def __init__(self, *, streams: tuple[int, int, int], inside: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, streams[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(streams[0])
        ends = zip((streams[0], *streams), inside, streams, (1, 2, 2), strict=False)
        self.blocks = nn.Sequential(*(UnevenBlock(inputs, width, out, stride) for inputs, width, out, stride in ends))
        self.fc = nn.Linear(streams[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class UnevenBlock(BasicBlock):
    """A basic block of any width inside."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.conv1 = nn.Conv2d(inputs, inside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, outputs, 3, padding=1, bias=False)


class UnevenPlain(nn.Module):
    """Convolutions with BatchNorm and ReLU, global average pool, classifier."""

    def __init__(self, *, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip((1, *widths), widths, strides, strict=False):
            conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]
