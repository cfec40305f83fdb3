"""What measured latencies depend on: the processor, the runtime and how it is used."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "amx_bf16", "amx_int8", "amx_tile", "asimd", "asimddp", "asimdhp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
FIELDS = ("vendor_id", "cpu family", "model", "stepping", "model name", "CPU implementer", "CPU part")


def fingerprint(*, runtime: str, device_type: str, batch: int, precision: str, threads: int) -> dict[str, Any]:
    """The device as JSON values. Tables are good for the very same fingerprint only.

    Args:
        runtime: What runs networks, such as "onnxruntime".
        device_type: "cpu" or "cuda".
        batch: Samples at once.
        precision: "fp32" or "bf16".
        threads: Of the runtime.
    """
    device = {
        **_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "runtime": runtime,
        "device_type": device_type,
        "batch": batch,
        "precision": precision,
        "threads": threads,
        "torch": torch.__version__,
    }
    if runtime in ("onnxruntime", "openvino"):
        device[runtime] = _version(runtime)
    if device_type == "cuda":
        device["accelerator"] = torch.cuda.get_device_name()
        device["cuda"] = torch.version.cuda
    return device


def differences(made: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs: key → there, here.

    Args:
        made: The fingerprint of what was measured.
        now: What is asked for, or measured, now.
    """
    keys = sorted({*made, *now})
    return {key: (made.get(key), now.get(key)) for key in keys if made.get(key) != now.get(key)}


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """`threads 2 there, 1 here; torch …`."""
    return "; ".join(f"{key} {there!r} there, {here!r} here" for key, (there, here) in differing.items())


def _version(package: str) -> str | None:
    """None where it is not there: whoever runs something on it is told then."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    """The processor's name, model and those of its flags that kernels are chosen by."""
    processor: dict[str, Any] = {"machine": platform.machine(), "processor": platform.processor()}
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return processor
    for line in info.read_text().split("\n\n")[0].splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in FIELDS:
            processor[key] = value
        elif key in ("flags", "Features"):
            processor["flags"] = " ".join(flag for flag in FLAGS if flag in value.split())
    return processor
