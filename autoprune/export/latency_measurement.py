"""How long a network takes for one sample, in torch and in ONNX Runtime."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autoprune.device.onnx_runtime import onnx_call
from autoprune.device.runtime import threads_of_torch, wall_seconds
from autoprune.device.timing import take_turns
from autoprune.ranges import Count, Threads, checked
from autoprune.task.copies import copied
from autoprune.task.samples import Samples, has_images, mapped
from autoprune.task.task import Forward, plain_forward

FEWEST = 10  # turns that count, however long they take
WARM_UP = 10  # turns before
REPEATS = 100  # turns that count where nobody says how often
LIMIT_S = 60  # for all


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one sample takes, over many runs."""

    median_ms: float
    """Of the runs."""
    low_ms: float
    """The quartile below it."""
    high_ms: float
    """The quartile above it."""

    def as_json(self) -> dict[str, float]:
        """Returns the three without their unit, as result.json has them."""
        return {"median": self.median_ms, "low": self.low_ms, "high": self.high_ms}


@checked
def measure_latency(
    networks: Mapping[str, nn.Module],
    example_input: Samples,
    *,
    onnx_files: Mapping[str, Path],
    forward: Forward = plain_forward,
    repeats: Count = REPEATS,
    threads: Threads = 1,
) -> dict[str, dict[str, Latency]]:
    """Returns how long each network takes for one sample on the CPU: name → "torch" or "onnxruntime" → latency.

    All networks take turns, so that what else the machine does hits all alike.

    Args:
        networks: By name; they stay as they are.
        example_input: Whose first sample is asked [n, ...].
        onnx_files: Name → the network's ONNX file; networks without one are measured in torch only.
        forward: How torch is asked.
        repeats: Turns that count; fewer, but ten at least, where they would take longer than a minute.
        threads: Of either runtime.

    Raises:
        ValueError: A number is out of range, or a file belongs to no network.
    """
    unknown = sorted(set(onnx_files) - set(networks))
    if unknown:
        raise ValueError(f"onnx_files names {unknown}, which are not among the networks {list(networks)}")
    sample = mapped(example_input, lambda x: x[:1].cpu())
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for name, network in networks.items():
        runs[name, "torch"] = partial(forward, _ready(network, sample), sample)
        if name in onnx_files:
            runs[name, "onnxruntime"] = onnx_call(onnx_files[name], sample, threads=threads)
    with threads_of_torch(threads):
        start = time.perf_counter()
        calls = [*runs.values()]
        warm_s, end_s = start + LIMIT_S / 4, start + LIMIT_S
        take_turns(calls, clock=wall_seconds, rounds=WARM_UP, go_on=lambda _: time.perf_counter() <= warm_s)
        seconds = take_turns(
            calls, clock=wall_seconds, rounds=repeats, go_on=lambda done: done < FEWEST or time.perf_counter() <= end_s
        )
    latencies: dict[str, dict[str, Latency]] = {name: {} for name in networks}
    for (name, runtime), durations in zip(runs, seconds, strict=True):
        low, median, high = np.quantile(durations * 1e3, [0.25, 0.5, 0.75]).tolist()
        latencies[name][runtime] = Latency(median, low, high)
    return latencies


def _ready(network: nn.Module, sample: Samples) -> nn.Module:
    """A copy on the CPU in eval mode, in the memory layout that is the faster one there, the same for all networks."""
    ready = copied(network).cpu().eval()
    if has_images(sample):
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ready
