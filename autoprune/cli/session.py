"""What every command does around its work: settings, seed, threads, allocator, run folder, tracker, and errors."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoprune.cli.command_settings import RULES
from autoprune.cli.composition import hydra_override
from autoprune.cli.parts import instantiate_part, spec_of, task_of
from autoprune.cli.validation import Section, check

if TYPE_CHECKING:
    from autoprune.problem.problem import Problem
    from autoprune.problem.spec import ProblemSpec
    from autoprune.runs import RunFolder
    from autoprune.task.task import Task
    from autoprune.tracking import Tracker

T = TypeVar("T")

# Errors that are sentences. Anything else is a fault of the program, and shows where it is.
SENTENCES = (
    ValueError, FloatingPointError, OSError, ImportError, RuntimeError, MemoryError, OmegaConfBaseException,
)  # fmt: skip
IMPORT_PATIENCE_S = 1.0  # for what is first of all
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # read before main() sets it for Hydra


def announced_in_terminal(what: str) -> contextlib.AbstractContextManager[None]:
    """Says in a terminal what the block does, where it takes longer than a second; stdout holds the answer alone.

    Args:
        what: Is going on, such as "writing the network".
    """
    from rich.console import Console

    from autoprune.report.progress import announced

    return announced(what, after_s=IMPORT_PATIENCE_S, console=Console(stderr=True, quiet=not sys.stderr.isatty()))


def run_command(
    job: Callable[[], T], *, interrupted: Callable[[], str] = lambda: "", failed: Callable[[], str] = lambda: ""
) -> T:
    """The job's result. What goes wrong ends the process with one sentence and status 1, or 128 and a signal's number.

    Args:
        job: The work.
        interrupted: What to say after Ctrl-C or another signal that ends a process.
        failed: What to say after an error that is not one of settings: how one goes on.
    """
    try:
        return job()
    except KeyboardInterrupt as error:
        end_interrupted(error, interrupted)
    except (InstantiationException, *SENTENCES) as error:
        if TRACEBACKS:
            raise
        says_how = isinstance(error, ValueError | InstantiationException | FileExistsError)
        hint = "" if says_how else failed()
        sys.exit("\n".join(filter(None, [f"error: {sentence_of(error)}", hint])))


def end_interrupted(error: KeyboardInterrupt, hint: Callable[[], str] = lambda: "") -> NoReturn:
    """The process ends as one that a signal ended, with one sentence on what there is.

    Args:
        error: Ctrl-C, or what `autoprune.interrupts` raises.
        hint: Writes what is still to be written, and returns how one goes on.
    """
    print(f"\n{str(error) or 'Interrupted'}. {hint()}".rstrip(), file=sys.stderr, flush=True)
    sys.exit(getattr(error, "status", 128 + signal.SIGINT))


def same_command_goes_on(folder: Path, key: str = "hydra.run.dir") -> str:
    """How one goes on where a command finds what it did before in its folder.

    Args:
        folder: The folder.
        key: Hydra's setting of it.
    """
    return f"The same command with {hydra_override(key, folder)} does what is not complete, and nothing twice."


def sentence_of(error: BaseException) -> str:
    """What an error says; one that is not meant to be read alone, such as a KeyError, says what and where it is too."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return sentence_of(error.__cause__)
    if isinstance(error, OmegaConfBaseException):
        return f"{str(error).splitlines()[0]} ({error.full_key})" if error.full_key else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return str(error.strerror)
    if isinstance(error, (InstantiationException, *SENTENCES)) and str(error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__} {error}".rstrip() + where


@dataclass(frozen=True, slots=True)
class Session:
    """One command at work."""

    settings: Mapping[str, Any]
    """Checked, with interpolations resolved."""
    written: str
    """The settings as config.yaml."""
    folder: Path
    """Where it writes; for commands that keep a run, the run's folder."""
    overrides: list[str]
    """What the person set."""

    @classmethod
    def begin(
        cls, config: DictConfig, section: type[Section], folder: Path, overrides: list[str], *, command: str
    ) -> Self:
        """Settings are checked; nothing is made of them yet.

        Raises:
            SettingsError: Where a setting is not what it may be.

        Args:
            config: What Hydra composed.
            section: What the command may be told.
            folder: What the command writes into.
            overrides: What the command line says.
            command: As a person types it, such as "autoprune search".
        """
        from autoprune.report.progress import announced

        settings: Any = OmegaConf.to_container(config, resolve=True)
        with announced("loading the libraries", after_s=IMPORT_PATIENCE_S):  # what settings describe is imported here
            check(settings, section, RULES, command=command, overrides=overrides)
        return cls(settings, OmegaConf.to_yaml(config, resolve=True), folder, overrides)

    def prepare_process(self) -> bool:
        """Threads, the memory allocator and the global seed are set; whether freed memory is kept."""
        import torch

        from autoprune.machine_cache import MeasurementCache, cache_dir, choose_allocator

        torch.set_num_threads(self.settings["threads"] or os.cpu_count() or 1)
        kept = choose_allocator(MeasurementCache(cache_dir()))
        torch.manual_seed(self.settings["seed"])  # autoprune passes its generators around; third parties may not
        return kept

    def part(self, name: str) -> Any:
        """The object that the settings describe under this name, None where they describe nothing."""
        return instantiate_part(self.settings, name)

    def spec(self, **others: Any) -> "ProblemSpec":
        """The problem that the settings describe, but for `others`, which they do not decide."""
        evaluation = dict(self.settings["evaluation"])
        if evaluation.get("store") == "run":
            evaluation["store"] = self.folder
        return spec_of({**self.settings, "evaluation": evaluation}, **others)

    def task(self) -> "Task":
        from autoprune.report.progress import announced

        with announced("loading the task"):
            return task_of(self.settings["task"], self.settings.get("data"))

    def prepared(self, task: "Task", spec: "ProblemSpec | None" = None) -> "Problem":
        """The task made ready, with progress where that takes long, and a line on what each step took.

        Args:
            task: The trained network, its data and its metric.
            spec: None for what the settings describe.
        """
        from autoprune.problem.problem import Problem
        from autoprune.report.progress import PATIENCE_S, StageProgress
        from autoprune.report.wording import preparation

        with StageProgress(after_s=PATIENCE_S) as progress:
            problem = Problem.prepare(
                task,
                self.spec() if spec is None else spec,
                seed=self.settings["seed"],
                progress=lambda step, done, of: progress.update(done, of=of, phase=step, note=""),
            )
        print(f"prepared in {preparation(problem.preparation_seconds)}")
        return problem

    def record(self, task: "Task") -> dict[str, Any]:
        """What every run.json says."""
        from autoprune.runs import machine, versions

        return {
            "name": self.folder.name,
            "task": task.name,
            "seed": self.settings["seed"],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "machine": machine(),
            "data": task.data.digests,
            "overrides": self.overrides,
        }

    def new_run(self) -> "RunFolder":
        """The run's folder, with its config.yaml. Raises ValueError where it holds a run already."""
        from autoprune.runs import RunFolder

        run = RunFolder.create(self.folder)
        run.write_text("config.yaml", self.written)
        return run

    @contextlib.contextmanager
    def tracked(self, **names: Any) -> "Iterator[Tracker]":
        """The run's tracker, which is closed at the end and told whether the run failed."""
        from autoprune.tracking import TrackedRun

        tracker = self.part("tracking")(TrackedRun(self.folder, self.folder.name, **names))
        failed = True
        try:
            yield tracker
            failed = False
        finally:
            tracker.close(failed=failed)
