"""A network as an ONNX file, checked against torch."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.device.onnx_runtime import Called, has_batch_axis, onnx_call, output_names, write_onnx
from autoprune.files import atomic_write
from autoprune.structure.experts import countable_experts
from autoprune.task.copies import copied
from autoprune.task.samples import Samples, cut, leaves, mapped, named_outputs, rows
from autoprune.task.seeded_forward import SeededForward
from autoprune.task.task import Forward, plain_forward

TOLERANCE = 1e-4  # largest difference between torch's and ONNX Runtime's outputs, relative to the outputs' own size
CHECKED = 200_000  # entries of real samples that the file is checked on
MOST_CHECKED = (2, 64)  # samples
BATCHES = (1, 3)  # the file must serve any batch size; two of them tell
WAYS = (  # to trace a network, of which the first that is right is taken
    {"batched": True, "lengths": False},
    {"batched": True, "lengths": True},
    {"batched": False, "lengths": False},
)
ONE_AT_A_TIME = 8  # random inputs, and real ones, that a file for one shape is checked on


def export_onnx(
    network: nn.Module,
    example_input: Samples,
    path: Path | str,
    *,
    forward: Forward = plain_forward,
    samples: Samples | None = None,
) -> float:
    """The file holds the network with a dynamic batch axis, checked against torch on random inputs at batch 1 and 3.

    And on real samples, which reach branches that random ones do not, such as experts that rows are routed to. Where
    that fails it is traced again with `len(tensor)` as a size of the batch. Where no batch axis fits, as with states
    whose batch is another axis, the file takes inputs of the example's shapes alone (`has_batch_axis`), and is checked
    on several of them.

    Args:
        network: On any device; it stays as it is.
        example_input: One sample [1, ...], or one of each of several inputs.
        path: Of the file.
        forward: How the network is called, and what of its answer becomes the file's outputs; several have the names
            that the network gives them.
        samples: Of the task [n, ...], of which some are checked, too.

    Returns:
        The largest absolute difference between ONNX Runtime's outputs and torch's.

    Raises:
        ValueError: They differ by more than 1e-4 of the outputs' size (at least 1); then nothing is written.
    """
    path = Path(path)
    network = copied(network).cpu().eval()
    example = mapped(example_input, Tensor.cpu)
    with torch.inference_mode():
        outputs = output_names(forward(network, example))
    called, some = Called(network, forward, example).eval(), None if samples is None else _some(samples)

    def written(temporary: Path, *, batched: bool, lengths: bool) -> float:
        with countable_experts(network):  # other ways to compute them branch on what is routed
            write_onnx(called, example, temporary, outputs=outputs, batched=batched, lengths=lengths)
        batches = BATCHES if batched else (None,) * ONE_AT_A_TIME
        difference = onnx_difference(network, example, temporary, forward=forward, batches=batches)
        parts = [] if some is None else [some] if batched else [*cut(rows(some, slice(0, ONE_AT_A_TIME)), 1)]
        return max([difference, *(check_onnx_on(network, part, temporary, forward=forward) for part in parts)])

    failures = []
    with atomic_write(path) as temporary:
        for way in WAYS:
            try:
                return written(temporary, **way)
            except Exception as error:  # exporters fail in many ways
                failures.append(error)
        raise failures[0]  # what fails for one sample, too, has the reason that it has for several


def export_onnx_into(
    folder: Path,
    network: nn.Module,
    example_input: Samples,
    *,
    forward: Forward = plain_forward,
    samples: Samples | None = None,
) -> float:
    """The folder holds network.onnx, which takes any batch, or network_one_sample.onnx where no batch axis fits.

    Who reads network.onnx may give it as many samples as they like, so the other one has another name.

    Args:
        folder: Of a run.
        network: On any device; it stays as it is.
        example_input: One sample [1, ...], or one of each of several inputs.
        forward: How the network is called.
        samples: Of the task [n, ...], of which some are checked, too.

    Returns:
        The largest absolute difference between ONNX Runtime's outputs and torch's.

    Raises:
        ValueError: They differ by more than 1e-4 of the outputs' size (at least 1); then nothing is written.
    """
    path = folder / "network.onnx"
    difference = export_onnx(network, example_input, path, forward=forward, samples=samples)
    if not has_batch_axis(path):
        path.replace(folder / "network_one_sample.onnx")
    return difference


def onnx_difference(
    network: nn.Module,
    example_input: Samples,
    path: Path | str,
    *,
    forward: Forward = plain_forward,
    batches: Sequence[int | None] = BATCHES,
) -> float:
    """Returns the largest absolute difference between a network on the CPU and its ONNX file, on random inputs.

    Raises:
        ValueError: It is more than 1e-4 of the outputs' size (at least 1).

    Args:
        network: The network.
        example_input: A batch [1, ...] that the network runs on.
        path: The file.
        forward: (network, inputs) → outputs: how the network is called.
        batches: Samples of each comparison; None: inputs of the example's own shapes.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch in batches:
        inputs = mapped(example_input, partial(_random_like, batch=batch, generator=generator))
        differences.append(_largest_difference(network, inputs, path, forward))
    return max(differences)


def check_onnx_on(network: nn.Module, inputs: Samples, path: Path | str, *, forward: Forward = plain_forward) -> float:
    """The ONNX file computes what the network does on these samples.

    Args:
        network: On any device, in eval mode.
        inputs: Samples of the task [n, ...]; real ones reach values that random ones do not.
        path: The network's ONNX file.
        forward: How the network is called, and what of its answer is the file's output.

    Returns:
        The largest absolute difference between ONNX Runtime's outputs and torch's.

    Raises:
        ValueError: Where it is more than 1e-4 of the outputs' size (at least 1), or shapes differ.
    """
    return _largest_difference(copied(network).cpu().eval(), mapped(inputs, Tensor.cpu), path, forward)


def _some(samples: Samples) -> Samples:
    """As many of the first samples as have CHECKED entries together, within MOST_CHECKED."""
    entries = sum(tensor[:1].numel() for tensor in leaves(samples))
    fewest, most = MOST_CHECKED
    return rows(samples, slice(0, min(most, max(fewest, CHECKED // max(1, entries)))))


def _largest_difference(network: nn.Module, inputs: Samples, path: Path | str, forward: Forward) -> float:
    """Over all outputs."""
    with torch.inference_mode():
        expected = [tensor.numpy() for tensor in named_outputs(forward(network, inputs)).values()]
    draws = isinstance(forward, SeededForward)
    return max(_difference(*pair, draws=draws) for pair in zip(onnx_call(path, inputs)(), expected, strict=True))


def _difference(outputs: NDArray[Any], expected: NDArray[Any], *, draws: bool) -> float:
    if outputs.shape != expected.shape:
        batch = len(expected)
        raise ValueError(
            f"ONNX Runtime returns {list(outputs.shape)} for a batch of {batch}, torch {list(expected.shape)}"
        )
    difference, scale = float(np.abs(outputs - expected).max()), max(1.0, float(np.abs(expected).max()))
    if not difference <= TOLERANCE * scale:  # also where it is NaN
        why = "the network may depend on its input in ways that tracing misses"
        if draws:
            why = "the network draws random numbers, and ONNX Runtime draws others; Task(forward=…) may leave them out"
        raise ValueError(
            f"for a batch of {len(expected)} ONNX Runtime differs from torch by {difference:.2g}, more than "
            f"{TOLERANCE:g} of the outputs' size {scale:.2g}; {why}"
        )
    return difference


def _random_like(example_input: Tensor, *, batch: int | None, generator: torch.Generator) -> Tensor:
    """[batch, ...], or as many as the example: normally distributed, or, of whole numbers, its own in another order.

    Masks keep their form: one that is shuffled may hide everything, which no network answers.
    """
    example_input = example_input.cpu()
    shape = example_input.shape if batch is None else (batch, *example_input.shape[1:])
    if example_input.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=example_input.dtype)
    values = example_input.flatten()
    if bool(((values == 0) | (values == 1)).all()):
        return example_input if batch is None else example_input[:1].repeat(batch, *[1] * (example_input.ndim - 1))
    return values[torch.randint(len(values), shape, generator=generator)]
