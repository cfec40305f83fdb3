"""ONNX files from torch, and how they are run. The only file that knows ONNX Runtime."""

import builtins
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.task.samples import Samples, leaves, mapped, named_outputs
from autoprune.task.task import Forward


def onnx_call(path: Path | str, inputs: Samples, *, threads: int = 1) -> Callable[[], list[NDArray[Any]]]:
    """An ONNX file with its inputs, ready to run: all outputs in order.

    An input that the network does not use is not in the file, and not given.

    Args:
        path: The file.
        inputs: What the network reads [N, ...].
        threads: Threads of the runtime, at least 1.
    """
    session = onnx_session(os.fspath(path), threads=threads)
    wanted = [value.name for value in session.get_inputs()]
    given = {name: tensor.cpu().numpy() for name, tensor in zip(input_names(inputs), leaves(inputs), strict=True)}
    return partial(session.run, None, {name: given[name] for name in wanted})


def has_batch_axis(path: Path | str) -> bool:
    """Whether a file of `write_onnx` has a dynamic batch axis.

    Args:
        path: The file.
    """
    return any(isinstance(value.shape[0], str) for value in onnx_session(os.fspath(path), threads=1).get_inputs())


def onnx_session(model: str | bytes, *, threads: int) -> "onnxruntime.InferenceSession":
    """A file's path, or a file's content, ready to run with so many threads.

    Args:
        model: An ONNX file's path or content.
        threads: Threads of the runtime, at least 1.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and not printed as well
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_run(model: bytes, inputs: Sequence[NDArray[np.generic]], *, threads: int) -> Callable[[], object]:
    """A file's content with its inputs, ready to run.

    Args:
        model: An ONNX file's path or content.
        inputs: What the network reads [N, ...].
        threads: Threads of the runtime, at least 1.
    """
    session = onnx_session(model, threads=threads)
    names = [value.name for value in session.get_inputs()]
    return partial(session.run, None, dict(zip(names, inputs, strict=True)))


def input_names(inputs: Samples) -> list[str]:
    """What a file's inputs are called: a mapping's keys, else "input", "input_1" and so on."""
    if isinstance(inputs, Mapping):
        return list(inputs)
    return ["input", *(f"input_{number}" for number in range(1, len(leaves(inputs))))]


def output_names(outputs: Samples) -> list[str]:
    """What a file's outputs are called: as the network names them where there are several, else "output"."""
    names = [name.replace(".", "_") for name in named_outputs(outputs)]
    return ["output"] if len(names) == 1 else [f"output_{name}" if name[0].isdigit() else name for name in names]


def write_onnx(
    network: nn.Module,
    inputs: Samples,
    to: Path | io.BytesIO,
    *,
    outputs: Sequence[str] = ("output",),
    batched: bool = True,
    lengths: bool = False,
) -> None:
    """Exports a network that takes tensors and returns one or several, with a dynamic batch axis.

    Args:
        network: Takes the leaves of `inputs` as its positional arguments.
        inputs: Examples [1, ...]; the file's inputs are named as `input_names` says.
        to: a path or a buffer.
        outputs: Names of what the network returns, in order.
        batched: Whether the first axis is dynamic; without, the file takes inputs of these shapes alone.
        lengths: Whether `len(tensor)` is the batch's size in the file, too, as `tensor.shape[0]` is; without, it is the
            example's.
    """
    names = input_names(inputs)
    with warnings.catch_warnings(), _traced_lengths() if lengths else nullcontext():
        # The exporter by tracing is deprecated, but takes 0.15 s where its successor takes 2 s and more dependencies.
        # What tracing may get wrong is not left to its warnings: the outputs are compared.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", message="Exporting aten::index", category=UserWarning)
        warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size", category=UserWarning)
        torch.onnx.export(
            network,
            tuple(leaves(inputs)),
            to,  # type: ignore[arg-type]  # or into memory
            input_names=names,
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)} if batched else None,
            dynamo=False,
        )


@contextmanager
def _traced_lengths() -> Iterator[None]:
    """`len` of a tensor is a size that tracing follows; Python's own has to be a number, which a trace forgets."""
    length = builtins.len
    builtins.len = lambda of: of.shape[0] if isinstance(of, Tensor) and of.ndim else length(of)
    try:
        yield
    finally:
        builtins.len = length


class Called(nn.Module):
    """A network of flat inputs and outputs: how it is called is part of it.

    example: inputs of the structure that `forward` gives the network; None for one tensor.
    """

    def __init__(self, network: nn.Module, forward: Forward, example: Samples = None) -> None:
        super().__init__()
        self.network, self.answer, self.example = network, forward, example

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = iter(inputs)
        structured = inputs[0] if self.example is None else mapped(self.example, lambda _: next(given))
        outputs = tuple(named_outputs(self.answer(self.network, structured)).values())
        return outputs if len(outputs) > 1 else outputs[0]


class Template:
    """An ONNX file at one width, from which files at other widths are made in less than a millisecond each.

    The widths in `network` and `inputs` must be numbers that nothing else in them is: they are what is replaced.
    """

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        import onnx

        buffer = io.BytesIO()
        write_onnx(network, inputs, buffer)
        self._model = onnx.load_from_string(buffer.getvalue())
        del self._model.graph.value_info[:]

    def at(self, widths: Mapping[int, int]) -> bytes:
        """The file with every dimension that is a key of `widths` replaced, and random weights where one was."""
        import onnx
        from onnx import numpy_helper

        model, rng = onnx.ModelProto(), np.random.default_rng(0)
        model.CopyFrom(self._model)
        graph = model.graph
        for weight in graph.initializer:
            if set(weight.dims) & set(widths):
                values = rng.standard_normal([widths.get(size, size) for size in weight.dims], np.float32)
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        for value in (*graph.input, *graph.output):
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_value in widths:  # the batch has a name instead of a value
                    dimension.dim_value = widths[dimension.dim_value]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "group":  # of a depthwise convolution
                    attribute.i = widths.get(attribute.i, attribute.i)
        return model.SerializeToString()  # type: ignore[no-any-return]
