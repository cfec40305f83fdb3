"""What runs networks: torch, ONNX Runtime, OpenVINO. Each makes layers and whole networks ready to be timed."""

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.device.fused_layer import FusedLayer
from autoprune.device.onnx_runtime import Called, Template, onnx_run, output_names, write_onnx
from autoprune.device.openvino_runtime import openvino_run
from autoprune.task.copies import copied
from autoprune.task.samples import Samples, leaves, mapped, repeated
from autoprune.task.task import Forward

Run = Callable[[], object]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEVICE_TYPES = ("cpu", "cuda")
RUNTIMES = ("onnxruntime", "openvino", "torch", "torch_compiled")
FILES: Mapping[str, "Start"] = {"onnxruntime": onnx_run, "openvino": openvino_run}  # those that run ONNX files
PRIMES = (101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157)  # widths that no other dimension of a layer is


class Start(Protocol):
    """See FileRuntime."""

    def __call__(self, model: bytes, inputs: Sequence[NDArray[np.generic]], *, threads: int) -> Run: ...


class Runtime(Protocol):
    """Makes things ready to run. `name` and `device_type` ("cpu", "cuda") are those of Settings."""

    def layer(self, layer: FusedLayer) -> Callable[[int, int], Run]:
        """(inputs, outputs) → the layer at that width."""
        ...

    def network(self, network: nn.Module, example_input: Tensor, forward: Forward) -> Run:
        """The network on the example's first sample, as often as the batch is large.

        Args:
            network: The network.
            example_input: A batch [1, ...] that the network runs on.
            forward: (network, inputs) → outputs: how the network is called.
        """
        ...

    def seconds(self, run: Run) -> float:
        """How long it takes once."""
        ...


def runtime_of(name: str, *, device_type: str, batch: int, precision: str) -> Runtime:
    """The runtime of that name.

    Args:
        name: One of RUNTIMES.
        device_type: "cpu" or "cuda".
        batch: Samples at once.
        precision: One of PRECISIONS.

    Raises:
        ValueError: It does not run here.
    """
    if name in FILES:
        if (device_type, precision) != ("cpu", "fp32"):
            raise ValueError(
                f"device.runtime={name} is measured at fp32 on the CPU, not at {precision} on {device_type}; "
                "set device.runtime=torch"
            )
        return FileRuntime(FILES[name], batch=batch)
    if device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device.device_type=cuda needs a CUDA device, and torch sees none; set device.device_type=cpu")
    return TorchRuntime(
        device_type=device_type, batch=batch, dtype=PRECISIONS[precision], compiled=name == "torch_compiled"
    )


class FileRuntime:
    """What runs ONNX files on the CPU, with as many threads as torch has, all its optimisations on.

    Args:
        start: (a file's content, inputs, threads) → the file on those inputs, ready to run.
        batch: Samples at once.
    """

    def __init__(self, start: Start, *, batch: int) -> None:
        self._start, self._batch = start, batch

    def layer(self, layer: FusedLayer) -> Callable[[int, int], Run]:
        taken = {*layer.size, *layer.kernel, *layer.output_size, self._batch, layer.groups}
        first, second = [prime for prime in PRIMES if prime not in taken][:2]
        stands = (first, first if layer.square else second)
        widths = [number * layer.groups for number in stands]
        example = layer.example(*widths, batch=self._batch)
        template = Template(layer.module(*widths), example)

        def at(inputs: int, outputs: int) -> Run:
            replaced = {stands[0]: inputs, widths[0]: inputs * layer.groups}
            replaced |= {stands[1]: outputs, widths[1]: outputs * layer.groups}
            tensors = layer.example(inputs * layer.groups, outputs * layer.groups, batch=self._batch)
            arrays = [tensor.numpy() for tensor in tensors]
            return self._start(template.at(replaced), arrays, threads=torch.get_num_threads())

        return at

    def network(self, network: nn.Module, example_input: Samples, forward: Forward) -> Run:
        inputs, buffer = mapped(repeated(example_input, self._batch), Tensor.cpu), io.BytesIO()
        network = copied(network).cpu().eval()
        with torch.inference_mode():
            names = output_names(forward(network, inputs))
        write_onnx(Called(network, forward, inputs).eval(), inputs, buffer, outputs=names)
        arrays = [tensor.numpy() for tensor in leaves(inputs)]
        return self._start(buffer.getvalue(), arrays, threads=torch.get_num_threads())

    def seconds(self, run: Run) -> float:
        return wall_seconds(run)


class TorchRuntime:
    """torch, eager or compiled, on the CPU or a CUDA device; images are in the memory layout that is fast there.

    Compiling takes seconds for every width, so layers run eagerly: a compiled network calls the same kernels for what
    takes longest. What compiling saves is left to the correction by whole networks, which are compiled.
    """

    def __init__(self, *, device_type: str, batch: int, dtype: torch.dtype, compiled: bool) -> None:
        self._torch_device, self._batch, self._dtype, self._compiled = torch.device(device_type), batch, dtype, compiled

    def layer(self, layer: FusedLayer) -> Callable[[int, int], Run]:
        def at(inputs: int, outputs: int) -> Run:
            widths = (inputs * layer.groups, outputs * layer.groups)
            module = self._module(layer.module(*widths))
            return partial(module, *map(self._tensor, layer.example(*widths, batch=self._batch)))

        return at

    def network(self, network: nn.Module, example_input: Samples, forward: Forward) -> Run:
        ready = self._module(copied(network).eval())
        inputs = mapped(repeated(example_input, self._batch), self._tensor)
        if not self._compiled:
            return partial(forward, ready, inputs)
        import torch._dynamo

        compiled: nn.Module = torch.compile(ready, dynamic=False)  # type: ignore[assignment]
        # Every network is compiled, and none of them falls back to eager because there were others of its class.
        with torch._dynamo.config.patch(recompile_limit=10**4, accumulated_recompile_limit=10**4):
            forward(compiled, inputs)
        return partial(forward, compiled, inputs)

    def seconds(self, run: Run) -> float:
        if self._torch_device.type == "cpu":
            return wall_seconds(run)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._torch_device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self._torch_device)
        return float(start.elapsed_time(end)) / 1e3

    def _module(self, module: nn.Module) -> nn.Module:
        ready = module.to(self._torch_device, self._dtype)
        return ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _tensor(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self._torch_device, self._dtype if tensor.is_floating_point() else None)
        return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """So many threads, and no gradients, while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def wall_seconds(run: Run) -> float:
    """How long it takes once, by the clock."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
