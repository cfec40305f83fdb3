"""A copy of a network whose matrices have few values, and training of those values."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autoprune.quantize.codebook import Initialisation, codebook_of
from autoprune.quantize.shared_weights import quantizable, round_to_half, write_codes
from autoprune.ranges import Count, Natural, Positive
from autoprune.task.copies import copied
from autoprune.task.task import Task
from autoprune.task.training import fit

OnStep = Callable[[int, int, float], None]  # (step, steps, loss)
STEPS = 127  # of int8, on either side of zero


class Quantize(Protocol):
    """(pruned network, task) → a copy whose matrices have few values, in eval mode; weights that are 0 stay 0."""

    def __call__(
        self, network: nn.Module, task: Task, *, generator: torch.Generator, layer_bits: Mapping[str, int] | None = None
    ) -> nn.Module:
        """Returns the copy.

        Args:
            network: Pruned; it stays as it is.
            task: What centroids are trained on.
            generator: The source of chance.
            layer_bits: Layer → bits of its codes, where a plan decides on them; None: the quantization's own.
        """
        ...


def no_quantization(
    network: nn.Module, task: Task, *, generator: torch.Generator, layer_bits: Mapping[str, int] | None = None
) -> nn.Module:
    """Returns a copy of the network, as it is; where a plan decides on bits, with codebooks that are not trained.

    Args:
        network: Stays as it is.
        task: Not read.
        generator: Not drawn from.
        layer_bits: Layer → bits of its codes; None: no codes.
    """
    coded = copied(network).eval()
    write_codes(coded, layer_bits or {})
    return coded


def quantize_codebook(  # noqa: PLR0913  conf/quantize/codebook.yaml names them one by one
    network: nn.Module,
    task: Task,
    *,
    bits: Count,
    convolution_bits: Count | None = None,
    initialisation: Initialisation,
    steps: Natural,
    learning_rate: Positive,
    batch_size: Count,
    generator: torch.Generator,
    layer_bits: Mapping[str, int] | None = None,
    on_step: OnStep | None = None,
) -> nn.Module:
    """Returns a copy whose every matrix and kernel has a codebook; its centroids are trained with all other parameters.

    A weight that is 0 stays 0 and has no code. The gradients of all weights that share a centroid add up, as in Deep
    Compression (arXiv 1510.00149). In the end centroids, biases and norms are rounded to half precision, which makes
    the file smaller and changes outputs by less than the codes do. A matrix without codes stays as it is.

    Args:
        network: Pruned; it stays as it is.
        task: Whose train role is seen.
        bits: Of a code, 1 to 8.
        convolution_bits: Of a convolution's codes; None: the same.
        initialisation: Of centroids, see `codebook_of`.
        steps: Of training; 0: centroids are means of weights.
        learning_rate: AdamW's highest.
        batch_size: Samples of a step.
        generator: Of the samples' order and of random centroids.
        layer_bits: Layer → bits of its codes, instead of both; those that it does not name stay as they are.
        on_step: Called with (step, steps, loss).

    Raises:
        ValueError: Bits are out of range, or of a layer that the network has not.
        FloatingPointError: The loss is not finite.
    """
    quantized = copied(network)
    layers = quantizable(quantized)
    if unknown := sorted((layer_bits or {}).keys() - layers.keys()):
        raise ValueError(f"layer_bits names {unknown}, which are no layers of weights; these are {list(layers)}")
    rng = np.random.default_rng(generator.initial_seed() % 2**63)
    for name, layer in layers.items():
        own = bits if convolution_bits is None or isinstance(layer, nn.Linear) else convolution_bits
        width = own if layer_bits is None else layer_bits.get(name)
        if width is not None:
            _share(layer, width, initialisation, rng)
    if steps:
        task.require_labels("training centroids")
        for parameter in quantized.parameters():
            parameter.requires_grad_(True)
        fit(
            quantized,
            task.data.train,
            loss=lambda outputs, _, targets: task.loss(outputs, targets),
            steps=steps,
            learning_rate=learning_rate,
            weight_decay=0.0,
            optimizer="adamw",
            batch_size=batch_size,
            augment=task.augment,
            forward=task.forward,
            generator=generator,
            on_step=on_step,
        )
    uncoded = {id(layer.weight) for layer in layers.values() if not parametrize.is_parametrized(layer, "weight")}
    round_to_half(quantized, without=uncoded)
    for layer in layers.values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return quantized.eval()


def quantize_int8(
    network: nn.Module, task: Task, *, generator: torch.Generator, layer_bits: Mapping[str, int] | None = None
) -> nn.Module:
    """Returns a copy whose weights are whole numbers in [-127, 127] times a scale for each output.

    The scale is the largest weight's 127th, rounded up to 11 bits, so that products are exact.

    Args:
        network: Pruned; it stays as it is.
        task: Is not asked.
        generator: Is not used.
        layer_bits: None, as all layers have 8.

    Raises:
        ValueError: A plan decides on bits.
    """
    if layer_bits is not None:
        raise ValueError("whole numbers of 8 bits leave a plan nothing to decide: layer_bits must be None")
    quantized = copied(network)
    with torch.no_grad():
        for layer in quantizable(quantized).values():
            weight: Tensor = layer.weight  # type: ignore[assignment]
            rows = weight.reshape(len(weight), -1)
            scale = (rows.abs().amax(dim=1, keepdim=True) / STEPS).half().float().clamp(min=2.0**-24)
            codes = (rows / scale).round().clamp(-STEPS, STEPS)
            # Adding 0 turns -0 into 0, which files do not store.
            weight.copy_((codes * scale + 0.0).reshape(weight.shape))
    return quantized.eval()


def _share(layer: nn.Module, bits: int, initialisation: Initialisation, rng: np.random.Generator) -> None:
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    kept = weight.flatten().nonzero().flatten()
    if not len(kept):
        return
    book = codebook_of(weight.flatten()[kept].double().cpu().numpy(), bits, initialisation=initialisation, rng=rng)
    centroids = torch.from_numpy(book.centroids).to(weight)
    shared = _SharedWeight(weight.shape, kept, torch.from_numpy(book.codes).to(weight.device), centroids)
    parametrize.register_parametrization(layer, "weight", shared, unsafe=True)


class _SharedWeight(nn.Module):
    """Centroids [count] → the weight, of which every kept entry is its centroid; gradients add up in the centroids."""

    def __init__(self, shape: torch.Size, kept: Tensor, codes: Tensor, centroids: Tensor) -> None:
        super().__init__()
        self.shape, self.kept, self.codes, self.first = shape, kept, codes, centroids

    def forward(self, centroids: Tensor) -> Tensor:
        flat = centroids.new_zeros(self.shape.numel())
        return flat.index_copy(0, self.kept, centroids.index_select(0, self.codes)).reshape(self.shape)

    def right_inverse(self, _: Tensor) -> Tensor:
        return self.first.clone()
