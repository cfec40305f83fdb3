"""Codes chosen by what they do to outputs: weights take a shared value each, and later ones make up for earlier ones.

As OPTQ does with evenly spaced values (Frantar et al., arXiv 2210.17323), here with a codebook's and around zeros that
stay. The nearest value is best for a weight alone, not for the sum that an output is.
"""

import torch
from torch import Tensor, nn

from autoprune.importance.gram import inverse_factor
from autoprune.quantize.shared_weights import quantizable
from autoprune.repair.moments import input_moments
from autoprune.structure.graph import find_structure
from autoprune.task.copies import copied
from autoprune.task.task import Task

ROWS = 8192  # of inputs that Gram matrices are made of
RIDGE = 1e-3
DAMPING = 1e-3


@torch.no_grad()
def codes_by_outputs(quantized: nn.Module, target: nn.Module, task: Task) -> nn.Module:
    """Returns a copy whose weights have the same values, chosen by least squares of every layer's outputs.

    Layers whose weights do not share values, or that read what has no Gram matrix, stay as they are.

    Args:
        quantized: A network whose matrices have few values; it stays as it is.
        target: The pruned network before, with the same zeros, whose outputs are aimed at.
        task: What is read of it: its calibration role.
    """
    structure = find_structure(target, task.example_input, prune=("weights",), forward=task.forward)
    names = tuple(group.name for group in structure.groups)
    moments = input_moments(
        target,
        structure,
        task.data.calibration,
        names=names,
        rows=ROWS,
        forward=task.forward,
        generator=torch.Generator().manual_seed(0),
    )
    assigned = copied(quantized).eval()
    for name, layer in quantizable(assigned).items():
        weight = layer.get_parameter("weight")
        values = weight[weight != 0].unique()
        if name not in names or not moments[name].drawn or 2 * len(values) > weight.count_nonzero():
            continue
        aim, kept = target.get_submodule(name).get_parameter("weight").flatten(1), (weight != 0).flatten(1)
        has_bias = getattr(layer, "bias", None) is not None
        gram, _ = moments[name].gram(name, centred=has_bias, ridge=RIDGE)
        rows = [
            choose_codes(each, stays, values, inverse_factor(products, damping=DAMPING))
            for each, stays, products in zip(aim.chunk(len(gram)), kept.chunk(len(gram)), gram, strict=True)
        ]
        weight.copy_(torch.cat(rows).view_as(weight))
    return assigned


def choose_codes(weight: Tensor, kept: Tensor, values: Tensor, factor: Tensor) -> Tensor:
    """Returns the matrix of shared values whose outputs are near the weight's [outputs, inputs]; zero where not kept.

    Columns are settled from the first to the last: each weight takes the value nearest to what is best for it after all
    that is settled.

    Args:
        weight: The matrix [outputs, inputs].
        kept: Which weights have a value [outputs, inputs].
        values: The codebook [values], ascending.
        factor: The upper triangular U of `inverse_factor` [inputs, inputs].
    """
    columns, chosen = weight.double().T.contiguous(), torch.zeros_like(weight.T.contiguous())
    edges = ((values[1:] + values[:-1]) / 2).double()
    for index, column in enumerate(columns):
        nearest = values[torch.bucketize(column, edges)]
        chosen[index] = torch.where(kept[:, index], nearest, 0.0)
        cost = (column - chosen[index]) / factor[index, index]
        columns[index + 1 :].addr_(factor[index, index + 1 :], cost, alpha=-1)
    return chosen.T.contiguous()
