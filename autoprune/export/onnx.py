"""A network as an ONNX file, checked against torch. The only file that knows ONNX Runtime."""

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.task.task import Forward, plain_forward

TOLERANCE = 1e-4  # largest difference between torch's and ONNX Runtime's outputs, relative to the outputs' own size
BATCHES = (1, 3)  # the file must serve any batch size; two of them tell

Runner = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def export_onnx(
    network: nn.Module, example_input: Tensor, path: Path | str, *, forward: Forward = plain_forward
) -> float:
    """Writes the network with a dynamic batch axis; the largest absolute difference between torch and ONNX Runtime.

    Both run on random inputs at batch 1 and 3. example_input [1, ...]. forward: how the network is called, and what of
    its answer becomes the file's output.
    Raises ValueError, and writes nothing, where they differ by more than 1e-4 of the outputs' size (at least 1).
    """
    path = Path(path)
    network = copy.deepcopy(network).cpu().eval()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(_Called(network, forward).eval(), example_input.cpu(), temporary)
        difference = onnx_difference(network, example_input, temporary, forward=forward)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


class _Called(nn.Module):
    """A network of one input and one output."""

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network, self.answer = network, forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answer(self.network, inputs)


def onnx_runner(path: Path | str, *, threads: int = 1) -> Runner:
    """inputs → outputs of an ONNX file in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        return session.run(None, {name: inputs})[0]  # type: ignore[no-any-return]

    return run


def _write(network: nn.Module, example_input: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        # The exporter by tracing is deprecated, but takes 0.15 s where its successor takes 2 s and more dependencies.
        # What tracing may get wrong is not left to its warnings: the outputs are compared.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", message="Exporting aten::index", category=UserWarning)
        torch.onnx.export(
            network,
            (example_input,),
            os.fspath(path),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            dynamo=False,
        )


def onnx_difference(
    network: nn.Module, example_input: Tensor, path: Path | str, *, forward: Forward = plain_forward
) -> float:
    """The largest absolute difference between a network on the CPU and its ONNX file, on random inputs.

    Raises ValueError where it is more than 1e-4 of the outputs' size (at least 1).
    """
    run, largest, generator = onnx_runner(path), 0.0, torch.Generator().manual_seed(0)
    for batch in BATCHES:
        inputs = _random_like(example_input.cpu(), batch, generator)
        with torch.inference_mode():
            expected = forward(network, inputs).numpy()
        outputs = run(inputs.numpy())
        if outputs.shape != expected.shape:
            raise ValueError(
                f"ONNX Runtime returns {list(outputs.shape)} for a batch of {batch}, torch {list(expected.shape)}"
            )
        difference, scale = float(np.abs(outputs - expected).max()), max(1.0, float(np.abs(expected).max()))
        if not difference <= TOLERANCE * scale:  # also where it is NaN
            raise ValueError(
                f"for a batch of {batch} ONNX Runtime differs from torch by {difference:.2g}, more than {TOLERANCE:g} "
                f"of the outputs' size {scale:.2g}; the network may depend on its input in ways that tracing misses"
            )
        largest = max(largest, difference)
    return largest


def _random_like(example_input: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """[batch, ...]: normally distributed, or the example's own values in another order where it holds whole numbers."""
    shape = (batch, *example_input.shape[1:])
    if example_input.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=example_input.dtype)
    values = example_input.flatten()
    return values[torch.randint(len(values), shape, generator=generator)]
