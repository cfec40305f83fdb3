"""Where a run's metrics go: the tracker protocol. Local files are always written; Weights & Biases is one tracker."""

import contextlib
import logging
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from autoprune.ranges import ProjectName

if TYPE_CHECKING:  # it takes half a second to import, and a run without tracking never needs it
    import wandb

Axis = Literal["evaluation", "agent/step", "recover/step", "schedule/step"]  # what a metric is plotted against
Mode = Literal["auto", "online", "offline"]

PLOTTED = {  # metrics → the axis that they belong to
    "search/*": "evaluation",
    "cost/*": "evaluation",
    "policy/*": "evaluation",
    "agent/*": "agent/step",
    "recover/*": "recover/step",
    "schedule/*": "schedule/step",
}
FLUSH_S = 1.0  # how much of an offline run a killed process may lose; W&B's own default is 15
INIT_TIMEOUT_S = 30.0
UPLOAD_LIMIT_S = 600  # for each artifact, before the run goes on to its end without it

SERVICE = "WANDB_SERVICE"  # version, process, kind and address of the service that W&B's client talks to
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives what a run measures; docs/metrics.md explains each key.

    Names of metrics, tables and artifacts are the caller's: `room/name` for metrics.
    """

    def log(self, metrics: Mapping[str, float | None], *, axis: Axis, step: int) -> None:
        """The metrics are plotted at `step`, counted from 1, of `axis`; None, NaN and infinite values are left out.

        Args:
            metrics: Log key → number.
            axis: What steps are counted in: "evaluation", "agent/step", "recover/step" or "schedule/step".
            step: At least 1.
        """

    def summary(self, values: Mapping[str, Any]) -> None:
        """The values are what the run comes down to."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """The table is shown; rows have one value per column.

        Args:
            name: What the table is called, such as plan.
            columns: Headings.
            rows: A row for each entry.
        """

    def bars(self, name: str, labels: Sequence[str], values: Sequence[float], *, title: str) -> None:
        """A bar chart is shown, with one label per value.

        Args:
            name: What the chart is called, such as plan_sparsity.
            labels: A label for each value.
            values: A number for each label.
            title: The heading.
        """

    def page(self, name: str, path: Path) -> None:
        """The self-contained HTML file is shown.

        Args:
            name: What the page is called, such as report.
            path: The file.
        """

    def artifact(self, name: str, path: Path, *, kind: str) -> None:
        """The file or folder is kept with the run; `kind` is "result", "policy", "plan" or "model".

        Args:
            name: What it is of the run: "result", "plan", "network" or "policy".
            path: A file or folder of the run.
            kind: "result", "policy", "plan" or "model".
        """

    def close(self, *, failed: bool = False) -> None:
        """The run has ended, and everything was sent or it was said what was not."""

    @property
    def run_id(self) -> str | None:
        """By which the tracker knows the run when it is resumed; None where there is nothing to go on with."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker knows of a run when it starts."""

    folder: Path
    """The run's."""
    name: str
    """By which people know the run."""
    group: str
    """By which runs are compared."""
    job_type: str
    """"search", "train", "train-pruned" or "tickets"."""
    config: Mapping[str, Any]
    """The run's settings, in JSON values."""
    run_id: str | None = None
    """Of the run that is resumed, as its tracker called it; None starts one."""
    tags: Sequence[str] = ()
    """By which runs are filtered, beside those of `tracking.tags`."""


class Tracking(Protocol):
    """Starts a run's tracker: what conf/tracking configures."""

    def __call__(self, run: TrackedRun) -> Tracker:
        """Returns the tracker of the run, or raises before any work is done."""
        ...


class NoTracker:
    """Local files are enough."""

    def log(self, metrics: Mapping[str, float | None], *, axis: Axis, step: int) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def bars(self, name: str, labels: Sequence[str], values: Sequence[float], *, title: str) -> None: ...

    def page(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path, *, kind: str) -> None: ...

    def close(self, *, failed: bool = False) -> None: ...

    @property
    def run_id(self) -> None:
        return None


class WandbTracker:
    """Sends a run's metrics to Weights & Biases, or keeps them in the run folder for `wandb sync`.

    The run's own files hold everything, so a failure of W&B halfway is a warning, given once, and never ends the run.
    """

    def __init__(self, run: "wandb.Run", *, folder: Path, first_step: int | None = None) -> None:
        """first_step: where W&B's own count of what was logged goes on in a resumed run; offline it does not know."""
        self._run, self._folder, self._first_step = run, folder, first_step
        self._warned: set[str] = set()
        self._uploads: dict[str, wandb.Artifact] = {}  # nobody has heard yet what became of them
        for metrics, axis in PLOTTED.items():
            run.define_metric(metrics, step_metric=axis, step_sync=False)
        for best in ("search/best", "policy/score"):  # whose column in the table of runs is the best value
            run.define_metric(best, step_metric="evaluation", step_sync=False, summary="max")

    def log(self, metrics: Mapping[str, float | None], *, axis: Axis, step: int) -> None:
        if axis not in get_args(Axis):
            raise ValueError(f"metrics are logged along one of {get_args(Axis)}, got {axis!r}")
        numbers = {key: value for key, value in metrics.items() if value is not None and math.isfinite(value)}
        self._go_on("metrics", lambda: self._log({axis: step, **numbers}))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._go_on("the summary", lambda: self._run.summary.update(dict(values)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._go_on(f"the table {name}", lambda: self._log({name: _table(columns, rows)}))

    def bars(self, name: str, labels: Sequence[str], values: Sequence[float], *, title: str) -> None:
        def draw() -> None:
            import wandb

            table = _table(["name", "value"], list(zip(labels, values, strict=True)))
            self._log({name: wandb.plot.bar(table, "name", "value", title=title)})

        self._go_on(f"the bars {name}", draw)

    def page(self, name: str, path: Path) -> None:
        def show() -> None:
            import wandb

            self._log({name: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

        self._go_on(f"the page {name}", show)

    def artifact(self, name: str, path: Path, *, kind: str) -> None:

        def keep() -> None:  # as name-RUN_ID; its files are read where they stand, not copied
            import wandb

            artifact = wandb.Artifact(_artifact_name(f"{name}-{self._run.id}"), type=kind)
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            if not files:
                raise FileNotFoundError(f"{path} holds no files")
            for file in files:
                inside = file.relative_to(path).as_posix() if path.is_dir() else file.name
                artifact.add_file(str(file.absolute()), name=inside, policy="immutable")
            logged = self._run.log_artifact(artifact)
            if not self._run.offline:
                self._uploads[f"the {kind} artifact {name}"] = logged

        self._go_on(f"the {kind} artifact {name}", keep)

    @property
    def run_id(self) -> str:
        return self._run.id

    def close(self, *, failed: bool = False) -> None:
        """Waits for the artifacts, which the server may refuse, and ends the run."""
        while self._uploads:
            what, artifact = self._uploads.popitem()
            self._go_on(what, partial(artifact.wait, timeout=UPLOAD_LIMIT_S))
        self._go_on("the end of the run", lambda: self._run.finish(exit_code=int(failed)))

    def _log(self, data: dict[str, Any]) -> None:
        step, self._first_step = self._first_step, None
        self._run.log(data, step=step, commit=True)

    def _go_on(self, what: str, send: Callable[[], object]) -> None:
        try:
            with _staging_in(self._folder):
                send()
        except Exception as error:
            if what not in self._warned:
                self._warned.add(what)
                _log.warning(
                    "Weights & Biases did not take %s (%s: %s). The run goes on; everything is in %s",
                    what, type(error).__name__, error, self._folder,
                )  # fmt: skip


def no_tracking(run: TrackedRun) -> NoTracker:
    """Returns a tracker that keeps nothing."""
    return NoTracker()


def wandb_tracking(
    run: TrackedRun, *, mode: Mode, project: ProjectName, entity: str | None, tags: Sequence[str]
) -> WandbTracker:
    """Returns the tracker of a W&B run whose files stand in `folder`/wandb.

    A resumed run keeps its id, by which `wandb sync` joins its parts.

    Args:
        run: What is tracked.
        mode: "online", "offline", or "auto", which is what WANDB_MODE says, else online for a user who is logged in.
        project: W&B's project.
        entity: The user or team it belongs to; None is the user who is logged in.
        tags: Of the run.

    Raises:
        RuntimeError: "online" is asked for and there is no login, or no answer.
    """
    import wandb
    import wandb.errors

    if mode not in get_args(Mode):
        raise ValueError(f"tracking.mode must be one of {get_args(Mode)}, got {mode!r}")
    _leave_service_of_others()
    wandb.setup(settings=wandb.Settings(silent=True))
    if mode == "online" and not _logged_in():
        raise RuntimeError(
            "tracking.mode=online needs a login to Weights & Biases, and there is none: run `wandb login` "
            "(or set WANDB_API_KEY, and unset WANDB_MODE), or choose tracking.mode=offline or tracking=none"
        )
    run.folder.mkdir(parents=True, exist_ok=True)  # where it does not exist, W&B would write to a temporary folder

    def start(where: Literal["online", "offline"]) -> WandbTracker:
        started = wandb.init(
            dir=str(run.folder),
            mode=where,
            project=project,
            entity=entity,
            name=run.name,
            group=run.group,
            job_type=run.job_type,
            tags=[*dict.fromkeys([*run.tags, *tags])],
            config=dict(run.config),
            id=run.run_id,
            resume=None if run.run_id is None else "allow",
            reinit="create_new",  # several runs at once in one process are several runs
            settings=wandb_settings(),
        )
        files = Path(started.dir).parent
        _log.info("tracked by Weights & Biases: %s", started.url or f"offline, until `{sync_command(files)}`")
        return WandbTracker(started, folder=run.folder, first_step=None if run.run_id is None else _lines(run.folder))

    if _resolve(mode) == "offline":
        return start("offline")
    try:
        return start("online")
    except wandb.errors.Error as error:
        if mode == "online":
            raise RuntimeError(
                f"Weights & Biases did not start the run ({error}); choose tracking.mode=offline to send it later"
            ) from error
        _log.warning(
            "Weights & Biases did not start the run (%s); it is tracked offline in %s/wandb", error, run.folder
        )
        return start("offline")


def _leave_service_of_others() -> None:
    """W&B begins a service of this process's own, where a parent process had handed one on.

    That of a notebook or a test goes on when a command is killed, and keeps its run's id: the run could not go on.
    """
    if f"-{os.getpid()}-" not in os.environ.get(SERVICE, ""):
        os.environ.pop(SERVICE, None)


def wandb_settings() -> "wandb.Settings":
    """Returns what all runs have in common: they say little, and send nothing that was not logged."""
    import wandb

    return wandb.Settings(
        console="off",
        silent=True,
        quiet=True,
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        init_timeout=INIT_TIMEOUT_S,
        x_disable_stats=True,
        x_save_requirements=False,  # run.json has the versions that matter
        x_transaction_log_flush_interval=FLUSH_S,
    )


def sync_command(files: Path) -> str:
    """What a person types to send what was tracked offline.

    Args:
        files: The offline run's folder.

    >>> print(sync_command(Path("my runs/one")))
    wandb sync 'my runs/one'
    """
    return shlex.join(["wandb", "sync", str(files)])


def _lines(folder: Path) -> int:
    """Lines in the run's files, none of which was logged twice: at least as many as W&B has got."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))


def _resolve(mode: Mode) -> Literal["online", "offline"]:
    if mode == "auto":
        chosen = os.environ.get("WANDB_MODE", "")
        return "online" if chosen in ("", "online") and _logged_in() else "offline"
    return mode


def _logged_in() -> bool:
    """Whether W&B finds a key: in the environment, in netrc or in its own settings. Asks no server and no person."""
    import wandb
    import wandb.errors

    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise RuntimeError(
            f"the key for Weights & Biases cannot be used ({error}); run `wandb login --relogin`, "
            "or choose tracking.mode=offline or tracking=none"
        ) from error


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "wandb.Table":
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def _artifact_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", name)


@contextlib.contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """What W&B stages for an upload stands in the run folder, not in the home folder, unless the user says where."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute() / "wandb")
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR", None)
