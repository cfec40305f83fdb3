"""Runs and comparisons on a Weights & Biases server."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import wandb
import wandb.errors

from autoprune.comparison.reading import RESULT, Missing, summary_of
from autoprune.comparison.run_summary import RunSummary

FORM = "wandb=ENTITY/PROJECT or wandb=ENTITY/PROJECT/GROUP"
KIND = "result"  # of the artifact that holds a run's result.json
AXIS, BEST, OWN = "evaluation", "search/best", "policy/score"


@dataclass(frozen=True, slots=True)
class Project:
    """Where runs are on the server."""

    entity: str
    """Whose project it is: a user or a team."""
    name: str
    """Of the project."""
    group: str | None = None
    """A sweep's; None: all of the project's."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`ENTITY/PROJECT[/GROUP]`. Raises ValueError for anything else."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{FORM} names the runs on the server, got {text!r}")
        return cls(*parts)

    @property
    def path(self) -> str:
        return f"{self.entity}/{self.name}"


def read_project(project: Project) -> tuple[list[RunSummary], list[Missing]]:
    """The runs of the project's searches, and those that left no result there.

    Raises RuntimeError where there is no login or no answer, FileNotFoundError where there are no runs.
    """
    runs, missing = [], []
    for run in _runs(project):
        config = dict(run.config)
        if not {"run", "settings"} <= config.keys():
            continue  # not a search of ours
        result = _result(run)
        what = " ".join(config["run"].get("overrides", ()))
        if result is None:
            missing.append(Missing(run.url, what, f"{run.state}, and it has no artifact of kind {KIND!r}"))
        else:
            runs.append(summary_of(result, config["run"], config["settings"], where=run.url))
    if not runs and not missing:
        raise FileNotFoundError(f"there are no searches in {project.path}, group {project.group or 'any'}")
    return runs, missing


def publish(project: Project, *, title: str, sentences: list[str]) -> str:
    """A report is saved on the server: the sentences, the best plan so far and the policy's own by agent.

    Args:
        project: Whose runs it plots.
        title: Of the report, its first 128 characters.
        sentences: a paragraph each.

    Returns:
        Its address.

    Raises:
        RuntimeError: There is no login or no answer.
        ImportError: Wandb-workspaces is not installed.
    """
    _api("publish=wandb")
    report = report_of(project, title=title, sentences=sentences)
    try:
        report.save()
    except Exception as error:  # the client's errors have no class in common
        raise RuntimeError(f"Weights & Biases did not take the report for {project.path}: {error}") from error
    return str(report.url)


def report_of(project: Project, *, title: str, sentences: list[str]) -> Any:
    """The report, not yet saved.

    Args:
        project: The project of Weights & Biases.
        title: The heading.
        sentences: What a reader is told first.

    Raises:
        ImportError: Wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces.reports import v2
    except ImportError as error:
        raise ImportError("publish=wandb needs wandb-workspaces: pip install 'autoprune[report]'") from error
    reports: Any = v2  # its names are not declared
    runs = reports.Runset(
        entity=project.entity,
        project=project.name,
        name=project.group or "all searches",
        filters=[] if project.group is None else f"Group = '{project.group}'",
        groupby=["config.agent"],
    )
    titles = {"title_x": "evaluations", "title_y": "score", "log_x": True}
    panels = [
        reports.LinePlot(title="The best plan that the search met so far", x=AXIS, y=[BEST], **titles),
        reports.LinePlot(title="The policy's own plan", x=AXIS, y=[OWN], **titles),
        reports.BarPlot(title="The policy's own plan over the uniform one", metrics=["result/policy_over_uniform"]),
        reports.BarPlot(title="Test accuracy of what was handed out", metrics=["result/accuracy_before"]),
    ]
    return reports.Report(
        entity=project.entity,
        project=project.name,
        title=title[:128],
        description=sentences[0],
        blocks=[
            reports.H1("Results"),
            *(reports.P(sentence) for sentence in sentences),
            reports.H1("The searches"),
            reports.PanelGrid(runsets=[runs], panels=panels),
        ],
    )


def _runs(project: Project) -> Iterator[Any]:
    filters = None if project.group is None else {"group": project.group}
    try:
        yield from _api("wandb=…").runs(project.path, filters=filters, lazy=False)
    except RuntimeError:
        raise
    except Exception as error:  # the client's errors have no class in common
        raise RuntimeError(f"Weights & Biases gave no runs of {project.path}: {error}") from error


def _result(run: Any) -> dict[str, Any] | None:
    """result.json of the last artifact that holds one."""
    for artifact in run.logged_artifacts():
        if artifact.type == KIND:
            with tempfile.TemporaryDirectory() as folder:
                read: dict[str, Any] = json.loads((Path(artifact.download(root=folder)) / RESULT).read_text())
                return read
    return None


def _api(asked: str) -> Any:
    """The server's interface. Raises RuntimeError where there is no login."""
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
    if offline or not _logged_in():
        raise RuntimeError(
            f"{asked} needs a login to Weights & Biases, and there is none: run `wandb login` (or set WANDB_API_KEY, "
            "and unset WANDB_MODE). Runs that were tracked offline get there by `wandb sync RUN/wandb/offline-run-*`; "
            "their folders can be compared without a server: autoprune compare RUN … or sweep=DIR"
        )
    return wandb.Api()


def _logged_in() -> bool:
    try:
        return wandb.login(prompt=False, verify=False)
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError):
        return False
