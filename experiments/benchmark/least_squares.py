"""Figure 4: the least-squares weights for every width of a layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.repair.least_squares import Reconstruction, _Reader
from autoprune.repair.moments import Moments, _patches
from autoprune.structure.axes import AxisSlices
from autoprune.structure.edit import evaluating
from experiments.benchmark.bench import Bench, Ready
from experiments.benchmark.row import Goal, Row, interleaved, ratio

TASK = "fashion_resnet20"
RIDGE, ROWS = 1e-3, 16384  # as in conf/repair/least_squares.yaml
DRIVERS = ("gelsy", "gels")  # torch.linalg.lstsq's default on the CPU, and its fastest
WIDTHS = (0.25, 0.5, 0.75, 1.0)  # of the units, that lstsq is timed at


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What the layer reads, `columns` [rows, entries × kernel], and what it makes of it, `outputs` [rows, outputs]."""

    ready: Ready
    name: str
    axis: AxisSlices
    columns: Tensor
    outputs: Tensor

    @property
    def units(self) -> int:
        return len(self.axis.members[0][1])

    @property
    def module(self) -> nn.Module:
        return self.ready.problem.task.model.get_submodule(self.name)

    def lstsq(self, driver: str, width: int) -> object:
        read = self.columns[:, : width * self.columns.shape[1] // self.units]
        return torch.linalg.lstsq(read, self.outputs, driver=driver)

    def gram(self) -> tuple[Tensor, Tensor]:
        moments = Moments(self.module, total=len(self.columns), wanted=len(self.columns))
        moments.take(self.columns[:, None])
        return moments.gram(self.name, centred=False, ridge=RIDGE)

    def all_widths(self, found: tuple[Tensor, Tensor]) -> None:
        """Ours, with the factorisation: from the Gram matrix and the inputs' mean."""
        known = self.ready.problem
        order = self.axis.order(known.candidates.ranking)
        reader = _Reader(
            self.axis,
            self.module,
            order,
            known.structure.names,
            gram=[found[0]],
            mean=found[1],
            keep=lambda tensor: tensor,
        )
        for _ in Reconstruction({self.name: reader}, {}).all_widths(self.name):
            pass


def least_squares(bench: Bench) -> list[Row]:
    """The layer with the most columns among those that read one group; both sides have the same rows."""
    layer = _layer(bench.ready(TASK), bench.size(ROWS, 512), bench.seed)
    widths = sorted({max(1, round(layer.units * part)) for part in WIDTHS})
    found = layer.gram()
    sides: list[Callable[[], object]] = [partial(layer.all_widths, found), lambda: layer.all_widths(layer.gram())]
    sides += [partial(layer.lstsq, driver, width) for driver in DRIVERS for width in widths]
    interleaved(sides[:2], repeats=1)  # warms up
    given, whole, *singles = interleaved(sides, repeats=bench.times(3))
    solved = np.array(singles).reshape(len(DRIVERS), len(widths), -1)  # [drivers, widths, repeats]
    totals = {driver: _extrapolated(widths, seconds) for driver, seconds in zip(DRIVERS, solved, strict=True)}
    best, *others = sorted(DRIVERS, key=lambda driver: float(np.median(totals[driver])))
    rows, columns = layer.columns.shape
    note = f"{layer.name}, {rows} rows × {columns} columns; lstsq is extrapolated from the widths {widths}"
    goal, one = Goal(100, 1000, higher=True), "one lstsq for each width"
    return [
        ratio(f"{one} ({best}) ÷ all widths from the Gram matrix, and that", totals[best], whole, goal=goal, note=note),
        ratio(f"{one} ({best}) ÷ all widths from the Gram matrix", totals[best], given, goal=goal),
        *(ratio(f"{one} ({d}) ÷ all widths from the Gram matrix, and that", totals[d], whole) for d in others),
    ]


def _layer(ready: Ready, wanted: int, seed: int) -> Layer:
    name, axis = _widest(ready)
    module = ready.problem.task.model.get_submodule(name)
    every = _patches(module, _inputs(ready, name)).flatten(3).flatten(0, 2)  # [samples × positions, columns]
    drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:wanted]
    columns = every[drawn].contiguous()
    return Layer(ready, name, axis, columns, columns @ module.get_parameter("weight").detach().flatten(1).T)


def _widest(ready: Ready) -> tuple[str, AxisSlices]:
    """The last of the convolutions with the most input columns whose inputs one group fills."""
    known = ready.problem
    found = list[tuple[int, int, str, AxisSlices]]()
    for name in known.candidates.reconstruction.layers:
        axis, layer = AxisSlices(known.structure, name, "in"), known.task.model.get_submodule(name)
        if axis.leading and isinstance(layer, nn.Conv2d) and layer.groups == 1:
            found.append((layer.weight[0].numel(), len(found), name, axis))
    if not found:
        raise RuntimeError(f"no convolution of {known.task.name} reads the units of one group alone")
    return max(found)[2:]


def _inputs(ready: Ready, name: str) -> Tensor:
    """What the layer reads in the dense network, for the calibration samples."""
    known, seen = ready.problem, list[Tensor]()
    layer = known.task.model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda layer, arguments: seen.append(arguments[0]))
    try:
        with evaluating(known.task.model), torch.no_grad():
            for batch in known.task.data.calibration.inputs.split(250):
                known.task.model(batch)
    finally:
        handle.remove()
    return torch.cat(seen)


def _extrapolated(widths: list[int], seconds: NDArray[np.float64]) -> list[float]:
    """What 1, 2, … all units take together, linear between those that were timed: seconds [widths, repeats]."""
    every = np.arange(1, widths[-1] + 1)
    return [float(np.interp(every, [0, *widths], [0.0, *column]).sum()) for column in seconds.T]
