"""ONNX files in OpenVINO, on the CPU. The only file that knows OpenVINO, which is an extra."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

EXTRA = "device.runtime=openvino needs OpenVINO: pip install 'autoprune[openvino]'"


def openvino_run(model: bytes, inputs: Sequence[NDArray[np.generic]], *, threads: int) -> Callable[[], object]:
    """An ONNX file's content, compiled at fp32 for inputs of these shapes, ready to run with so many threads.

    Args:
        model: An ONNX file's content.
        inputs: What the network reads [N, ...].
        threads: Threads of the runtime, at least 1.

    Raises:
        ImportError: The extra is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError(EXTRA) from error
    read = openvino.Core().read_model(io.BytesIO(model))
    read.reshape({port: openvino.PartialShape(list(x.shape)) for port, x in zip(read.inputs, inputs, strict=True)})
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(read, "CPU", settings).create_infer_request()
    for index, array in enumerate(inputs):
        request.set_input_tensor(index, openvino.Tensor(np.ascontiguousarray(array)))
    return request.infer  # type: ignore[no-any-return]
