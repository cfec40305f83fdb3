"""Bytes that are moved, and the energy that this and the arithmetic take."""

from autoprune.cost.combined import WeightedSum
from autoprune.cost.model import BilinearCost, macs, summed
from autoprune.structure.groups import Structure

MILLIJOULES = 1e-9  # of a picojoule


def bytes_moved(structure: Structure, *, weight_bytes: int, activation_bytes: int) -> BilinearCost:
    """Bytes between memory and arithmetic for one sample: each weight is read once, each layer's output written and
    read once.

    Layers are convolutions, linear layers and attentions; what follows them element by element is fused into them. A
    weight or bias takes weight_bytes. What caches save, and what a residual stream is read once more, is left out.
    """
    weighted = [layer.kind in ("conv", "linear") for layer in structure.layers]
    computing = [layer.kind != "norm" for layer in structure.layers]
    per_weight = [weight_bytes * layer.kernel * has for layer, has in zip(structure.layers, weighted, strict=True)]
    per_output = [
        2 * activation_bytes * layer.positions * computes + weight_bytes * (layer.bias and has)
        for layer, computes, has in zip(structure.layers, computing, weighted, strict=True)
    ]
    return summed("bytes_moved", "bytes", structure, per_weight, per_output, 0)


def energy(
    structure: Structure, *, pj_per_mac: float, pj_per_byte: float, weight_bytes: int = 4, activation_bytes: int = 4
) -> WeightedSum:
    """Millijoules for one sample: pj_per_mac · MACs + pj_per_byte · bytes moved, both in picojoules."""
    for name, value in (("pj_per_mac", pj_per_mac), ("pj_per_byte", pj_per_byte)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be an energy in picojoules, at least 0, got {value}")
    moved = bytes_moved(structure, weight_bytes=weight_bytes, activation_bytes=activation_bytes)
    weights = (MILLIJOULES * pj_per_mac, MILLIJOULES * pj_per_byte)
    return WeightedSum("energy", "mJ", (macs(structure), moved), weights)
