"""What an agent sees of a group: named features, relative and log-scaled, so that they mean the same on any network."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from autoprune.cost.budget import Budget
from autoprune.cost.model import CostModel, FloatArray
from autoprune.structure.groups import Layer, Structure

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
DENSITIES = (0.25, 0.5, 0.75)
GRANULARITIES = ("channel", "neuron", "head", "query", "block", "weight", "n_m", "key_block")

GROUP_FEATURES = (
    "depth",  # place in the network, 0 first to 1 last
    "units",  # log10 of the dense number of units
    "macs_share",  # fraction of the dense MACs that goes when the group is cut to its floor
    "params_share",
    "budget_share",  # the same for the cost that the budget bounds
    "macs",  # log10 of the MACs that the group's layers spend
    "params",  # log10 of their parameters
    "layers",  # log2 of how many layers are coupled
    "kernel",  # log2 of the largest kernel's elements
    "stride",  # log2 of the largest stride
    "depthwise",  # 1 where a depthwise convolution is coupled
    *(f"granularity_{name}" for name in GRANULARITIES),
    *(f"score_quantile_{int(100 * q)}" for q in QUANTILES),  # of the units' scores over their largest
    *(f"reconstruction_error_{int(100 * d)}" for d in DENSITIES),  # of the readers, at most 1, when so many % are kept
)

MOST_SCORES = 10_000  # that quantiles are taken of


def group_features(
    structure: Structure,
    *,
    scores: Mapping[str, Tensor],
    errors: Mapping[str, FloatArray],
    costs: Mapping[str, CostModel],
    budget: Budget,
) -> FloatArray:
    """[groups, len(GROUP_FEATURES)]

    Args:
        structure: The network's groups and layers.
        scores: Group → the score of each of its units [units].
        errors: Group → [units + 1], the relative error of what reads the group, by how many of its units are kept.
        costs: Cost → what a plan costs; macs and params among them.
        budget: Whose cost is one of the features.
    """
    layers = {layer.name: layer for layer in structure.layers}
    bounded = (costs["macs"], costs["params"], budget.cost)
    rows = [
        [
            index / max(1, len(structure.groups) - 1),
            np.log10(group.units),
            *(_share(cost, structure, index) for cost in bounded),
            *_geometry([layers[m.layer] for m in group.members if m.layer in layers] or structure.layers_of(group)),
            *(float(group.granularity == name) for name in GRANULARITIES),
            *_score_quantiles(scores[group.name]),
            *np.interp(np.multiply(DENSITIES, group.units), np.arange(group.units + 1), errors[group.name]),
        ]
        for index, group in enumerate(structure.groups)
    ]
    return np.array(rows, np.float64)


def _geometry(coupled: Sequence[Layer]) -> list[float]:
    """`macs` to `depthwise`, of the layers that are coupled in a group."""
    weighted = [layer for layer in coupled if layer.kind in ("conv", "linear")]
    spending = weighted or coupled  # an attention alone, which has no weights
    return [
        np.log10(1 + sum(_products(layer) * layer.positions for layer in spending)),
        np.log10(1 + sum(map(_products, weighted))),
        np.log2(len(coupled)),
        np.log2(max(layer.kernel for layer in spending)),
        np.log2(max(layer.stride for layer in spending)),
        float(any(layer.depthwise for layer in coupled)),
    ]


def _products(layer: Layer) -> int:
    return layer.outputs * layer.inputs * layer.kernel


def _score_quantiles(scores: Tensor) -> FloatArray:
    few = scores.flatten()[:: max(1, scores.numel() // MOST_SCORES)]  # of a matrix with a score for every weight
    positive = (few - few.min().clamp(max=0)).double().numpy()  # criteria may be negative; quantiles are relative
    return np.quantile(positive / max(float(positive.max()), 1e-12), QUANTILES)


def _share(cost: CostModel, structure: Structure, index: int) -> float:
    cut = structure.units
    cut[index] = structure.floor[index]
    return float(1 - cost(cut) / cost(structure.units))
