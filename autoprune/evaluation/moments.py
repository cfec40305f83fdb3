"""Second moments of what layers read, from the calibration samples: all that least squares needs to know of them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.edit import CONVOLUTIONS, evaluating
from autoprune.structure.groups import Structure
from autoprune.task.task import Role

BATCH = 64  # samples; a network's activations for so many fit in memory
NOISE = 1e-12  # a variance below this share of the inputs' mean square is rounding error in float64
SMALLEST_MEAN = 1e-6  # the ridge's reference, as a share of the inputs' mean square: far above NOISE


class Moments:
    """Sums over a layer's input rows, a row per sample and output position, in dense order and float64.

    total: how many rows will pass by; wanted: how many of them are drawn, spread evenly over the calls.
    """

    def __init__(self, layer: nn.Module, *, total: int, wanted: int) -> None:
        weight = layer.get_parameter("weight")
        groups, columns = getattr(layer, "groups", 1), weight[0].numel()
        self.second = torch.zeros(groups, columns, columns, dtype=torch.float64, device=weight.device)
        self.first = self.second.new_zeros(groups, columns)
        self.total, self.wanted, self.passed, self.drawn = total, min(wanted, total), 0, 0

    def add(self, layer: nn.Module, inputs: Tensor, generator: torch.Generator) -> None:
        patches = _patches(layer, inputs)
        positions = patches.shape[: patches.ndim - layer.get_parameter("weight").ndim + 1]
        here = math.prod(positions)
        self.passed += here
        quota = self.wanted * self.passed // self.total - self.drawn
        self.drawn += quota
        index = torch.randperm(here, generator=generator)[:quota].sort().values.to(patches.device)
        rows = patches[torch.unravel_index(index, positions)].reshape(quota, *self.first.shape).double().transpose(0, 1)
        self.second.baddbmm_(rows.mT, rows)
        self.first += rows.sum(dim=1)

    def gram(self, name: str, *, centred: bool, ridge: float) -> tuple[Tensor, Tensor]:
        """G with its ridge, and the inputs' mean. Raises ValueError where G is not positive definite."""
        gram, mean = self.second / self.drawn, self.first / self.drawn
        if not torch.isfinite(gram).all():
            raise ValueError(f"the inputs of {name!r} hold NaN or infinity; look for broken weights or samples")
        square = gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
        if centred:
            gram -= mean[:, :, None] * mean[:, None, :]
        reference = gram.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True).maximum(SMALLEST_MEAN * square)
        gram.diagonal(dim1=1, dim2=2).add_(ridge * torch.where(square > 0, reference, 1.0))
        lower, failed = torch.linalg.cholesky_ex(gram)
        if failed.any() or (lower.diagonal(dim1=1, dim2=2).square() <= NOISE * square).any():
            raise ValueError(
                f"the inputs of {name!r} depend on one another on {self.drawn} rows, so least squares have no single "
                f"solution with ridge={ridge}; set a larger ridge, such as 1e-3, or give more calibration samples"
            )
        return gram, mean


def input_moments(
    model: nn.Module, structure: Structure, role: Role, *, names: tuple[str, ...], rows: int, generator: torch.Generator
) -> dict[str, Moments]:
    positions = {layer.name: layer.positions for layer in structure.layers}
    layers = {name: model.get_submodule(name) for name in names}
    moments = {n: Moments(layer, total=positions[n] * len(role), wanted=rows) for n, layer in layers.items()}
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, arguments, name=name: moments[name].add(layer, arguments[0], generator)
        )
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            for batch in role.inputs.split(BATCH):
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A view of what each output position reads: [samples, *positions, channels, *kernel], or [..., inputs]."""
    if not isinstance(layer, CONVOLUTIONS):
        return inputs
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        patches = patches.unfold(2 + dim, gap * (size - 1) + 1, step)[..., ::gap]
    return patches.movedim(1, 1 + len(layer.kernel_size))
