"""Second moments of what layers read, from the calibration samples: all that least squares needs to know of them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.importance.gram import add_products, symmetric
from autoprune.importance.layer_inputs import first_readers, read_inputs
from autoprune.structure.groups import Structure
from autoprune.structure.layer_types import CONVOLUTIONS
from autoprune.task.task import Forward, Role

CHUNK = 2**21  # entries of rows that are taken at a time
BATCH = 64  # samples at most
ACTIVATION_BYTES = 2**24  # of one layer's outputs for a batch: several are alive at a time
WIDE = 512  # columns; below, products in float64 take next to no time
NOISE = 1e-12  # a variance below this share of the inputs' mean square is rounding error in float64
NOISE_WIDE = 1e-6  # and of their mean variance, in float32
SMALLEST_MEAN = 1e-6  # the ridge's reference, as a share of the inputs' mean square: far above NOISE


class Moments:
    """Sums over a layer's input rows, a row per sample and output position, in dense order and float64.

    Of layers with WIDE columns or more, products are made in float32: of rows less their first batch's mean, which is
    put back in float64, so that a large mean takes no digits from the variance.
    total: how many rows will pass by; wanted: how many of them are drawn, spread evenly over the calls.
    """

    def __init__(self, layer: nn.Module, *, total: int, wanted: int) -> None:
        weight = layer.get_parameter("weight")
        groups, columns = getattr(layer, "groups", 1), weight[0].numel()
        self.second = torch.zeros(groups, columns, columns, dtype=torch.float64, device=weight.device)
        self.first = self.second.new_zeros(groups, columns)
        self.shift: Tensor | None = None
        self.dtype, self.noise = (torch.float64, NOISE) if columns < WIDE else (torch.float32, NOISE_WIDE)
        self.total, self.wanted, self.passed, self.drawn = total, min(wanted, total), 0, 0

    def add(self, layer: nn.Module, inputs: Tensor, generator: torch.Generator) -> None:
        patches = _patches(layer, inputs)
        positions = patches.shape[: patches.ndim - layer.get_parameter("weight").ndim + 1]
        here = math.prod(positions)
        self.passed += here
        quota = min(here, self.wanted * self.passed // self.total - self.drawn)  # data may choose
        if not quota:
            return
        index = torch.randperm(here, generator=generator)[:quota].sort().values.to(patches.device)
        for part in index.split(max(1, CHUNK // self.first.numel())):
            self.take(patches[torch.unravel_index(part, positions)].reshape(len(part), *self.first.shape))

    def take(self, rows: Tensor) -> None:
        """Adds rows [rows, convolution groups, columns]."""
        self.drawn += len(rows)
        rows = rows.to(self.dtype)
        if self.shift is None:
            self.shift = rows.mean(dim=0) if self.dtype == torch.float32 else torch.zeros_like(rows[0])
        rows = (rows - self.shift).transpose(0, 1)
        add_products(self.second, rows)
        self.first += rows.sum(dim=1)

    def gram(self, name: str, *, centred: bool, ridge: float, last: bool = False) -> tuple[Tensor, Tensor]:
        """G with its ridge, and the inputs' mean.

        Args:
            name: What it is called in messages.
            centred: Whether a bias makes up for the inputs' mean.
            ridge: How strongly weights are held to their old values, at least 0.
            last: Nobody asks again, so that the sums may become G.

        Raises:
            ValueError: G is not positive definite.
        """
        if self.shift is None:
            raise ValueError(f"{name!r} read nothing, so there is nothing to solve for; does it run in task.forward?")
        gram = symmetric(self.second if last else self.second.clone()).div_(self.drawn)
        mean, shift = self.first / self.drawn, self.shift.double()
        if not torch.isfinite(gram).all():
            raise ValueError(f"the inputs of {name!r} hold NaN or infinity; look for broken weights or samples")
        exact = self.noise * gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)  # no variance below it is
        square = (gram.diagonal(dim1=1, dim2=2) + shift * (shift + 2 * mean)).mean(dim=1, keepdim=True)
        if centred:
            gram.addcmul_(mean[:, :, None], mean[:, None, :], value=-1)
        else:
            gram.addcmul_(mean[:, :, None], shift[:, None, :]).addcmul_(shift[:, :, None], (mean + shift)[:, None, :])
        reference = gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True).maximum(SMALLEST_MEAN * square)
        gram.diagonal(dim1=1, dim2=2).add_(ridge * torch.where(square > 0, reference, 1.0))
        lower, failed = torch.linalg.cholesky_ex(gram)
        if failed.any() or (lower.diagonal(dim1=1, dim2=2).square() <= exact).any():
            raise ValueError(
                f"the inputs of {name!r} depend on one another on {self.drawn} rows, so least squares have no single "
                f"solution with ridge={ridge}; set a larger ridge, such as 1e-3, or give more calibration samples"
            )
        return gram, mean + shift


def input_moments(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    forward: Forward,
    names: tuple[str, ...],
    rows: int,
    generator: torch.Generator,
) -> dict[str, Moments]:
    """Layer → the moments of `rows` of its input rows at most; layers that read the same tensors have the same.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
        names: Layers, by qualified name.
        rows: The most rows of inputs that are kept.
        generator: Draws all that is random here.
    """
    if not names:  # nothing is read for nobody
        return {}
    positions = {layer.name: layer.positions for layer in structure.layers}
    first = first_readers(model, names, role, forward=forward)
    moments = {
        name: Moments(model.get_submodule(name), total=max(1, positions[name]) * len(role), wanted=rows)
        for name in dict.fromkeys(first.values())
    }

    def add(name: str, layer: nn.Module, inputs: Tensor) -> None:
        moments[name].add(layer, inputs, generator)

    read_inputs(model, tuple(moments), role, forward=forward, batch_size=_batch_size(structure), on_input=add)
    return {name: moments[first[name]] for name in names}


def _batch_size(structure: Structure) -> int:
    """Fewer samples at a time where a layer's outputs are large, as those of images of 224² are."""
    largest = max((4 * layer.outputs * layer.positions for layer in structure.layers), default=1)
    return max(1, min(BATCH, ACTIVATION_BYTES // max(1, largest)))


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A view of what each output position reads: [samples, *positions, channels, *kernel], or [..., inputs]."""
    if not isinstance(layer, CONVOLUTIONS):
        return inputs
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        patches = patches.unfold(2 + dim, gap * (size - 1) + 1, step)[..., ::gap]
    return patches.movedim(1, 1 + len(layer.kernel_size))
