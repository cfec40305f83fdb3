"""Where a task's networks compute, and in which precision their weights are held."""

import math
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from autoprune.ranges import device_name
from autoprune.task.copies import copied

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPIES = 4  # of the weights that a search may need: dense, ordered, candidate, and what is computed with them


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model is loaded to, in which precision, and how much memory a search on it may need."""

    device: str | None = None
    """cpu, cuda, or cuda:N; None: cpu."""
    dtype: Dtype | None = None
    """Of the weights; None: float32."""
    memory_gb: float | None = None
    """In 10⁹ bytes; None: what the device has."""

    @property
    def torch_device(self) -> torch.device:
        """The device, which is there."""
        return checked_device(self.device or "cpu")

    @property
    def precision(self) -> Dtype:
        """The name of the weights' precision."""
        return self.dtype or "float32"

    def check_memory(self, parameters: int, what: str) -> None:
        """Raises MemoryError where a search on so many parameters needs more than there is.

        Args:
            parameters: Of the dense model.
            what: The model, as the sentence calls it.
        """
        size = DTYPES[self.precision].itemsize
        needed = parameters * size * COPIES
        limit = memory_of(self.torch_device) if self.memory_gb is None else self.memory_gb * 1e9
        if needed <= limit:
            return
        has = f"{self.torch_device} has" if self.memory_gb is None else "task.memory_gb is"
        half = "set task.dtype=bfloat16, which takes half; " if self.precision == "float32" else ""
        raise MemoryError(
            f"{what} has {parameters / 1e6:,.0f} million parameters of {size} bytes ({self.precision}): a search on it "
            f"needs about {needed / 1e9:,.1f} GB ({COPIES} times its weights), and {has} {limit / 1e9:,.1f} GB. Take a "
            f"smaller model or a larger machine; {half}or set task.memory_gb={math.ceil(needed / 1e9)} or more if it "
            "fits all the same"
        )


def checked_device(name: str | torch.device) -> torch.device:
    """Returns the device of that name, which this PyTorch can use.

    Args:
        name: cpu, cuda, or cuda:N with N from 0.

    Raises:
        ValueError: It is none of these, or there is none here.
    """
    try:
        device = torch.device(device_name(str(name)))
    except ValueError as error:
        raise ValueError(f"task.device={name}: {error}") from error
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        why = "was built without CUDA" if torch.version.cuda is None else "sees no CUDA device"
        raise ValueError(
            f"task.device={name} needs a CUDA device, and this PyTorch ({torch.__version__}) {why}; leave task.device "
            "out to compute on the processor, or install PyTorch for CUDA on a machine that has one"
        )
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"task.device={name}: PyTorch sees {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    return device


def memory_of(device: torch.device) -> int:
    """Returns the bytes that a search may take: all of the machine's, or what is free on an accelerator.

    Args:
        device: One that `checked_device` returned.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns a copy whose parameters are of the precision.

    Of a lower one, buffers stay as they are: rotary frequencies need all their digits.

    Args:
        model: A network.
        dtype: Of its floating-point parameters.
    """
    model = copied(model)
    if dtype == torch.float32:
        return model.float()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def check_in_memory(model: nn.Module) -> None:
    """Raises ValueError where weights are on no device, as they were offloaded or never loaded, or cannot be changed.

    Args:
        model: A network.
    """
    # by their type, as what stands for an accelerator in tests says that it is this device
    absent = [
        name for name, parameter in model.named_parameters() if type(parameter) is nn.Parameter and parameter.is_meta
    ]
    if absent:
        raise ValueError(
            f"{len(absent)} parameters of the {type(model).__name__}, such as {absent[0]}, are not in memory: "
            "device_map has offloaded them, or they were never loaded. Candidates are slices of weights in memory: "
            "load the model whole, with a device_map of accelerators that hold it together, or take dtype=bfloat16"
        )
    if fixed := [name for name, parameter in model.named_parameters() if parameter.is_inference()]:
        raise ValueError(
            f"{len(fixed)} parameters of the {type(model).__name__}, such as {fixed[0]}, were made in "
            "torch.inference_mode, where torch lets nobody change them; make or load the model outside of it, or under "
            "torch.no_grad"
        )
