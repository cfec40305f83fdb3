"""Gram matrices of what layers read, and the inverse factor that second-order criteria take from them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.importance.layer_inputs import first_readers, read_inputs
from autoprune.task.task import Forward, Role

BATCH = 64  # samples
DEAD = 1e-12
STRIP = 256  # columns of a product, as far as it is symmetric


def input_grams(model: nn.Module, names: Sequence[str], role: Role, *, forward: Forward) -> dict[str, Tensor]:
    """Linear layer → the mean of x xᵀ over all samples and positions [inputs, inputs], float64.

    Products of a batch are made in float32 and added up in float64. Layers that read the same tensors have the same
    matrix.

    Args:
        model: The dense network, in eval mode.
        names: Layers, by qualified name.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.

    Raises:
        ValueError: Inputs hold NaN or infinity.
    """
    other = next((name for name in names if not isinstance(model.get_submodule(name), nn.Linear)), None)
    if other is not None:
        raise ValueError(
            f"products of inputs are taken of linear layers, and {other!r} is a "
            f"{type(model.get_submodule(other)).__name__}; name it in task.keep, or use taylor, wanda or magnitude"
        )
    first = first_readers(model, names, role, forward=forward)
    sums: dict[str, Tensor] = {}
    rows = dict.fromkeys(first.values(), 0)

    def add(name: str, layer: nn.Module, inputs: Tensor) -> None:
        flat = inputs.reshape(1, -1, inputs.shape[-1]).float()
        if name not in sums:
            sums[name] = torch.zeros(1, flat.shape[-1], flat.shape[-1], dtype=torch.float64, device=flat.device)
        add_products(sums[name], flat)
        rows[name] += flat.shape[1]

    read_inputs(model, tuple(rows), role, forward=forward, batch_size=BATCH, on_input=add)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ValueError(f"the inputs of {name!r} hold NaN or infinity; look for broken weights or samples")
        sums[name] = symmetric(total)[0].div_(rows[name])
    return {name: sums[first[name]] for name in names}


def add_products(total: Tensor, rows: Tensor) -> None:
    """Adds rowsᵀ rows to `total` [batch, columns, columns], whose upper triangle counts; see `symmetric`.

    Args:
        total: The sum so far [batch, columns, columns].
        rows: Products are made in its precision, sums in that of `total`.
    """
    for start in range(0, rows.shape[-1], STRIP):
        stop = start + STRIP
        total[:, start:stop, start:] += rows[:, :, start:stop].mT @ rows[:, :, start:]


def symmetric(upper: Tensor) -> Tensor:
    """The symmetric matrices [batch, n, n] that have these upper triangles, in the same memory."""
    for start in range(0, upper.shape[-1], STRIP):
        stop = start + STRIP
        corner = upper[:, start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).mT)
        upper[:, stop:, start:stop] = upper[:, start:stop, stop:].mT
    return upper


def inverse_factor(gram: Tensor, *, damping: float) -> Tensor:
    """The upper triangular U with UᵀU = (G + λI)⁻¹, float64, λ = damping · the mean of G's diagonal.

    To set weight j to zero, and all later ones to what is then best, costs (w[j] / U[j, j])² on top of what the earlier
    ones did. An input that is always zero is damped by DEAD · λ only, so that its weights cost next to nothing.

    Args:
        gram: The mean of x xᵀ [inputs, inputs].
        damping: Λ relative to the mean of the diagonal, above 0.
    """
    diagonal = gram.diagonal()
    ridge = damping * diagonal.mean()
    ridges = torch.where(diagonal > 0, ridge, DEAD * ridge) if ridge > 0 else torch.ones_like(diagonal)
    lower = torch.linalg.cholesky((gram + ridges.diag()).flip(0, 1))  # from the last column to the first
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1)
