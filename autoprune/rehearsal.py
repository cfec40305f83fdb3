"""Before anything is paid for: what a run will do later is done once, on the dense network and on the smallest one."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.export.network import load_network, network_bytes, save_network
from autoprune.export.onnx import check_onnx_on, export_onnx
from autoprune.recover.recovery import Recovery
from autoprune.task.samples import largest_difference, leaves, rows
from autoprune.task.task import Role, Task, outputs_of

T = TypeVar("T")
SAMPLES = 64  # of each role, that a rehearsal looks at
SPARE = 4  # dense networks that the run's disk has to hold: recovered ones, the exported one, its ONNX file


class _OneStep(Exception):
    """Ends a rehearsed recovery after its first step."""


def rehearse(task: Task, networks: Mapping[str, nn.Module], *, recover: Recovery, folder: Path) -> dict[str, str]:
    """Every later stage of a run has been done once, in seconds.

    Args:
        task: whose four roles are judged, at most 64 samples each.
        networks: name → network in eval mode: the dense one, and the smallest that the budget allows.
        recover: is stopped after its first step.
        folder: the run's, whose disk has to hold what will be written.

    Returns:
        Stage → why a run has to do without it, in one sentence; only ONNX can be left out.

    Raises:
        ValueError: where a stage fails that a run needs; the sentence names the setting that changes it.
    """
    _check_disk(folder, networks)
    for name, role in task.data.items():
        _check_role(task, name, role, networks)
    short = _shortened(task)
    for name, network in networks.items():
        with _explained(
            f"the {name} network cannot be recovered", "set recover=none, or change what Task(loss=…) takes"
        ):
            _recover_once(network, short, recover)
    with tempfile.TemporaryDirectory() as temporary:
        for name, network in networks.items():
            with _explained(f"the {name} network cannot be saved and loaded again", "keep its layers with task.keep"):
                _round_trip(network, task, Path(temporary) / name)
        return _rehearsed_onnx(task, networks, Path(temporary)) if task.onnx else {}


def _check_disk(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free, needed = shutil.disk_usage(existing).free, SPARE * max(map(network_bytes, networks.values()))
    if free < needed:
        raise ValueError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB left and a run may write {needed / 2**20:.0f} MiB of "
            "networks; free some, or choose another disk with hydra.run.dir"
        )


def _check_role(task: Task, name: str, role: Role, networks: Mapping[str, nn.Module]) -> None:
    broken = _broken_rows(role)
    if broken:
        raise ValueError(
            f"the {name} role has {len(broken)} of {len(role)} samples with NaN or infinity, the first at row "
            f"{broken[0]}; leave them out of Roles({name}=…)"
        )
    for which, network in networks.items():
        with _explained(
            f"the {which} network cannot be judged on the {name} role", "look at that role's data in the Task"
        ):
            Judge(task, role[:SAMPLES])(network)


def _broken_rows(role: Role) -> list[int]:
    """Rows whose inputs or targets hold NaN or infinity."""
    finite = torch.ones(len(role), dtype=torch.bool)
    for values in (*leaves(role.inputs), *leaves(role.targets)):
        if values.is_floating_point():
            finite &= torch.isfinite(values).reshape(len(role), -1).all(dim=1).cpu()
    return (~finite).nonzero().flatten().tolist()


def _shortened(task: Task) -> Task:
    """The task with a train role of a few samples: a teacher may be asked about all of them before the first step."""
    return replace(task, data=replace(task.data, train=task.data.train[:SAMPLES]))


def _recover_once(network: nn.Module, task: Task, recover: Recovery) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        raise _OneStep

    generator = torch.Generator(task.device).manual_seed(0)
    try:
        recover(network, task, teacher=task.model, generator=generator, on_step=stop)
    except _OneStep:
        return


def _round_trip(network: nn.Module, task: Task, folder: Path) -> None:
    save_network(network, folder, architecture=None)
    samples = rows(task.data.calibration.inputs, slice(0, 1))
    before = outputs_of(network, samples, task.forward)
    after = outputs_of(load_network(folder, model=task.model), samples, task.forward)
    difference = largest_difference(before, after)
    if not difference == 0:  # also where it is NaN
        raise ValueError(f"its outputs differ by {difference:.2g} after loading")


def _rehearsed_onnx(task: Task, networks: Mapping[str, nn.Module], folder: Path) -> dict[str, str]:
    for name, network in networks.items():
        path = folder / f"{name}.onnx"
        try:
            export_onnx(network, task.example_input, path, forward=task.forward)
            check_onnx_on(network, rows(task.data.calibration.inputs, slice(0, 2)), path, forward=task.forward)
        except Exception as error:  # exporters fail in many ways, and none of them needs to end a run
            return {
                "onnx": f"no ONNX file is written and ONNX Runtime is not timed, because the {name} network cannot be "
                f"exported ({_first_line(error)}); Task(onnx=False) says so beforehand"
            }
    return {}


@contextmanager
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
        """What `work` returns, or `otherwise` where it raises; then `failed` says why.

        Args:
            stage: The stage's name.
            work: Does it.
            otherwise: What is returned where it fails.
        """
        try:
            return work()
        except Exception as error:
            self.failed[stage] = f"{type(error).__name__}: {_first_line(error)}"
            fallback: T = otherwise
            return fallback
