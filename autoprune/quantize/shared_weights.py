"""Weights that share few values, as plans are judged by: a codebook without training, in a fraction of a second."""

from collections.abc import Mapping, Set

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.quantize.codebook import Values, centroids_of
from autoprune.structure.layer_types import CONVOLUTIONS

FITTED = 65_536  # weights of a matrix that centroids are means of
ROUNDS = 8  # of k-means
FEW = 4096  # weights, among which most matrices that are not coded have more values than there are codes


def fitted(weights: Values) -> Values:
    """Returns the weights in ascending order, or FITTED of them at equal ranks, the least and the greatest included.

    Args:
        weights: [count] that are not zero.
    """
    ordered = np.sort(np.asarray(weights, np.float64))
    if len(ordered) <= FITTED:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, FITTED).round().astype(np.int64)]


def shared_values(weight: Tensor, bits: int) -> Tensor:
    """Returns the weights, each at the nearest of 2^bits centroids at half precision; a weight that is 0 stays 0.

    Centroids begin evenly from the least to the greatest weight and take some rounds of k-means.

    Args:
        weight: Of any shape.
        bits: Of a code, 1 to 8.
    """
    flat = weight.detach().float().flatten()
    kept = flat.nonzero().flatten()
    if not len(kept):
        return weight
    values = flat[kept]
    if _few_values(values, 2**bits):  # coded already, and not to be coded more coarsely
        return weight
    centroids = centroids_of(fitted(values.cpu().numpy()), bits, rounds=ROUNDS)[0].astype(np.float16).astype(np.float32)
    centroids = np.unique(centroids)
    edges = torch.from_numpy((centroids[1:] + centroids[:-1]) / 2).to(flat.device)
    coded = torch.zeros_like(flat)
    coded[kept] = torch.from_numpy(centroids).to(flat.device)[torch.bucketize(values, edges)]
    return coded.view(weight.shape).to(weight.dtype)


def _few_values(values: Tensor, most: int) -> bool:
    """Whether there are at most so many different values; a few of them mostly tell that there are not."""
    return len(values[:FEW].unique()) <= most and len(values.unique()) <= most


@torch.no_grad()
def write_codes(network: nn.Module, layer_bits: Mapping[str, int]) -> None:
    """The layers' weights share values, in place; where any do, all but matrices are at half precision.

    Args:
        network: A pruned network.
        layer_bits: Layer → bits of its codes; layers that the network lacks are passed over.
    """
    layers = dict(network.named_modules())
    matrices = {id(layer.weight) for layer in quantizable(network).values()}
    for name, bits in layer_bits.items():
        if name in layers:
            weight = layers[name].get_parameter("weight")
            weight.copy_(shared_values(weight, bits))
    if layer_bits:
        round_to_half(network, without=matrices)


@torch.no_grad()
def round_to_half(network: nn.Module, *, without: Set[int]) -> None:
    """Parameters and norms' running statistics are at half precision, in place; a tensor that exceeds it stays.

    Args:
        network: Of any kind.
        without: `id` of parameters that stay as they are.
    """
    statistics = [network.get_buffer(name) for name in norm_statistics(network)]
    for tensor in (*network.parameters(), *statistics):
        if tensor.is_floating_point() and id(tensor) not in without and _fits_half(tensor):
            tensor.copy_(tensor.half())


def norm_statistics(network: nn.Module) -> list[str]:
    """Returns the names of norms' running means and variances."""
    return [
        f"{name}.{buffer}".removeprefix(".")
        for name, module in network.named_modules()
        for buffer, _ in module.named_buffers(recurse=False)
        if buffer in ("running_mean", "running_var")
    ]


def _fits_half(tensor: Tensor) -> bool:
    return tensor.numel() == 0 or bool(tensor.abs().max() <= torch.finfo(torch.float16).max)


def quantizable(network: nn.Module) -> dict[str, nn.Module]:
    """Returns the convolutions and linear layers by name, those that share a weight once."""
    layers: dict[int, tuple[str, nn.Module]] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
            layers.setdefault(id(layer.weight), (name, layer))
    return dict(layers.values())
