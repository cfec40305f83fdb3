"""Before anything is paid for: what a run will do later is done once, on the dense network and on the smallest one."""

import contextlib
import errno
import inspect
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from autoprune.device.onnx_runtime import has_batch_axis
from autoprune.evaluation.judge import Judge
from autoprune.export.network import load_network, network_bytes, save_network
from autoprune.export.onnx import export_onnx
from autoprune.recover.recovery import Recovery
from autoprune.report.progress import announced
from autoprune.task.samples import Samples, cut, largest_difference, leaves, rows, samples_within
from autoprune.task.task import Role, Task, outputs_of

T = TypeVar("T")
SAMPLES = 64  # of each role, that a rehearsal looks at
FEWEST = 8  # and of a network that is large
LARGE = 10**7  # parameters; with more of them samples are fewer in proportion, so that a rehearsal takes no longer
JUDGED = ("search", "test")  # roles that the metric is computed of
SPARE = 4  # dense networks that the run's disk has to hold: recovered ones, the exported one, its ONNX file
ONE_SHAPE = (
    "network_one_sample.onnx is written instead of network.onnx, for inputs of the example's shape alone: with a batch "
    "axis the file cannot be written, or answers otherwise"
)


ANNOUNCED = {  # stages that show no progress of their own
    "choose": "choosing between the plans",
    "anytime": "judging the search's best plans on other samples",
    "export": "writing the network",
    "judge": "judging every network on the test role",
    "latency": "timing every network",
    "measures": "measuring what the task measures of every network",
}


class _TwoSteps(Exception):
    """Ends a rehearsed recovery after its second step."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the rehearsal of a run's later stages showed. Mappings of seconds have an entry for each network."""

    left_out: Mapping[str, str]
    """Stage → why a run has to do without it, in one sentence: ONNX, ONNX for several samples at once, a metric."""
    judging_s: Mapping[str, float]
    """Seconds that a sample takes which is judged as those of the test role are."""
    step_s: Mapping[str, float]
    """Seconds of a step of recovery, for a whole batch."""
    steps: int
    """Of a recovery; 0 where nothing is trained."""
    export_s: Mapping[str, float]
    """Seconds that it takes to write the network, to load it again and to check both."""


def rehearse(task: Task, networks: Mapping[str, nn.Module], *, recover: Recovery, folder: Path) -> Rehearsal:
    """Every later stage of a run has been done once, in seconds.

    Args:
        task: Whose four roles are judged, at most 64 samples each, and fewer by large networks.
        networks: Name → network in eval mode: the dense one, and the smallest that the budget allows.
        recover: Is stopped after its second step.
        folder: The run's, whose disk has to hold what will be written.

    Raises:
        ValueError: Where a stage fails that a run needs; the sentence names the setting that changes it.
    """
    _check_disk(folder, networks)
    judging, steps, exporting = (dict.fromkeys(networks, 0.0) for _ in range(3))
    samples = _samples(task.model)
    for name, role in task.data.items():
        judging = _check_role(task, name, role, networks, samples)  # in the end those of the test role, all warmed up
    # a teacher may be asked about all of the train role before the first step
    short, count = replace(task, data=replace(task.data, train=task.data.train[:samples])), 0
    whole = _batch_size(recover, len(task.data.train)) / _batch_size(recover, len(short.data.train))
    for name, network in networks.items():
        with _explained(
            f"the {name} network cannot be recovered", "set recover=none, or change what Task(loss=…) takes"
        ):
            seconds, count = _recover_twice(network, short, recover)
            steps[name] = seconds * whole
    with tempfile.TemporaryDirectory() as temporary:
        for name, network in networks.items():
            with _explained(f"the {name} network cannot be saved and loaded again", "keep its layers with task.keep"):
                begun = time.perf_counter()
                _round_trip(network, task, Path(temporary) / name)
                exporting[name] += time.perf_counter() - begun
        left_out = _rehearsed_onnx(task, networks, Path(temporary), exporting) if task.onnx else {}
    if silent := [name for name in JUDGED if _is_silent(task, getattr(task.data, name), samples)]:
        left_out["metric"] = (
            f"task.metric is NaN of the dense network on the whole of role {' and of role '.join(silent)}, so that "
            "nothing says how good networks are there; the targets may lack what it compares, or the metric is wrong"
        )
    return Rehearsal(left_out, judging, steps, count, exporting)


def _check_disk(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free, needed = shutil.disk_usage(existing).free, SPARE * max(map(network_bytes, networks.values()))
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the disk of {folder} has {free / 2**20:.1f} MiB left and a run may write {needed / 2**20:.1f} MiB of "
            "networks; free some, or choose another disk with hydra.run.dir",
        )


def _samples(network: nn.Module) -> int:
    """How many of a role's samples such a network is tried on."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return max(FEWEST, SAMPLES * LARGE // max(LARGE, parameters))


def _check_role(task: Task, name: str, role: Role, networks: Mapping[str, nn.Module], samples: int) -> dict[str, float]:
    """The role can be judged; network → the seconds that a sample takes."""
    for what, broken in (("inputs", _broken_rows(role.inputs)), ("targets", _unreadable_targets(task, role))):
        if broken:
            way = ", or give a loss that leaves out such targets: Task(loss=…)" if what == "targets" else ""
            raise ValueError(
                f"the {name} role has {len(broken)} of {len(role)} samples with NaN or infinity in their {what}, the "
                f"first at row {broken[0]}; leave them out of Roles({name}=…){way}"
            )
    seconds, short = {}, role[:samples]
    for which, network in networks.items():
        with _explained(
            f"the {which} network cannot be judged on the {name} role", "look at that role's data in the Task"
        ):
            judge, begun = Judge(task, short), time.perf_counter()
            judge(network)
            seconds[which] = (time.perf_counter() - begun) / len(short)
    return seconds


def _is_silent(task: Task, role: Role, samples: int) -> bool:
    """Whether the metric of the dense network is NaN, of a few samples and of the whole role."""
    if not task.measured or role.targets is None:
        return False
    few = role[:samples]
    if math.isfinite(task.metric(outputs_of(task.model, few.inputs, task.forward), few.targets)):
        return False
    return math.isnan(Judge(task, role)(task.model).accuracy)


def _broken_rows(samples: Samples) -> list[int]:
    """Rows that hold NaN or infinity."""
    broken: list[int] = []
    for values in leaves(samples):
        parts = cut(values, samples_within(values, len(values))) if values.is_floating_point() else None
        for start, part in zip((own.start for own in parts.slices), parts, strict=True) if parts else ():
            finite = torch.isfinite(part).reshape(len(part), -1).all(dim=1)
            broken += [start + row for row in (~finite).nonzero().flatten().tolist()]
    return sorted(set(broken))


def _unreadable_targets(task: Task, role: Role) -> list[int]:
    """Rows whose targets hold NaN or infinity, unless the task's own loss and metric leave these out."""
    broken = _broken_rows(role.targets)
    if not broken or not task.trained:
        return broken
    few = role[torch.tensor(sorted({*broken[:SAMPLES], *range(min(len(role), SAMPLES))}))]
    outputs = outputs_of(task.model, few.inputs, task.forward)
    with torch.no_grad():
        values = [
            float(task.loss(outputs, few.targets)),
            *([task.metric(outputs, few.targets)] if task.measured else []),
        ]
    return [] if all(map(math.isfinite, values)) else broken


def _batch_size(recover: Recovery, samples: int) -> int:
    """Samples of a step of the recovery, of so many; all where its settings do not say."""
    function = getattr(recover, "func", recover)
    default = inspect.signature(function).parameters.get("batch_size")
    own = getattr(recover, "keywords", {}).get("batch_size", default and default.default)
    return min(own, samples) if isinstance(own, int) else samples


def _recover_twice(network: nn.Module, task: Task, recover: Recovery) -> tuple[float, int]:
    """One step of the recovery is possible; the seconds of the second one, and how many there will be.

    What fails after the first step is left to the recovery: so few samples say nothing of how it goes on.
    """
    clock, of = [time.perf_counter()], 0

    def stop(step: int, steps: int, loss: float) -> None:
        nonlocal of
        of = steps
        clock.append(time.perf_counter())
        if step >= 2:
            raise _TwoSteps

    generator = torch.Generator(task.device).manual_seed(0)
    try:
        recover(network, task, teacher=task.model, generator=generator, on_step=stop)
    except Exception:  # _TwoSteps among them
        if not of:
            raise
    return (clock[-1] - clock[-2] if of else 0.0), of


def _round_trip(network: nn.Module, task: Task, folder: Path) -> None:
    save_network(network, folder, architecture=None)
    samples = rows(task.data.calibration.inputs, slice(0, 1))
    before = outputs_of(network, samples, task.forward)
    after = outputs_of(load_network(folder, model=task.model).to(task.device), samples, task.forward)
    difference = largest_difference(before, after)
    if not difference == 0:  # also where it is NaN
        raise ValueError(f"its outputs differ by {difference:.2g} after loading")


def _rehearsed_onnx(
    task: Task, networks: Mapping[str, nn.Module], folder: Path, seconds: dict[str, float]
) -> dict[str, str]:
    """Adds what each network takes to `seconds`; returns why there is no ONNX, or none for several samples."""
    limits: dict[str, str] = {}
    for name, network in networks.items():
        path, begun = folder / f"{name}.onnx", time.perf_counter()
        try:
            samples = task.data.calibration.inputs
            export_onnx(network, task.example_input, path, forward=task.forward, samples=samples)
            seconds[name] += time.perf_counter() - begun
            if not has_batch_axis(path):
                limits["onnx_batches"] = ONE_SHAPE
        except Exception as error:  # exporters fail in many ways, and none of them needs to end a run
            return {
                "onnx": f"no ONNX file is written and ONNX Runtime is not timed, because the {name} network cannot be "
                f"exported ({_first_line(error)}); Task(onnx=False) says so beforehand"
            }
    return limits


@contextlib.contextmanager
def _explained(what: str, way_out: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence; running out of memory and the like included."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}: {_first_line(error)}; {way_out}") from error


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text.rstrip(".;")[:300]


class RunStages:
    """The stages of a run after its search: one that fails is written down, and the others go on."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def attempt(self, stage: str, work: Callable[[], T], *, otherwise: Any) -> T:
        """What `work` returns, or `otherwise` where it raises; then `failed` says why. What takes long is announced.

        Args:
            stage: The stage's name.
            work: Does it.
            otherwise: What is returned where it fails.
        """
        try:
            with announced(ANNOUNCED[stage]) if stage in ANNOUNCED else contextlib.nullcontext():
                return work()
        except Exception as error:
            self.failed[stage] = f"{type(error).__name__}: {_first_line(error)}"
            fallback: T = otherwise
            return fallback
