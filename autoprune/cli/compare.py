"""`autoprune compare`: agents on equal terms, from runs that are there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from autoprune.comparison.reading import Missing
    from autoprune.comparison.run_summary import RunSummary

USAGE = """usage: autoprune compare RUN … | sweep=DIR | SUMMARIES.jsonl[.gz] … | wandb=ENTITY/PROJECT[/GROUP]
                         [evaluations=N] [out=DIR] [publish=wandb]"""
SUMMARIES, SUFFIXES = "run_summaries.jsonl", (".jsonl", ".gz")


def compare(arguments: Sequence[str]) -> None:
    """Prints who is better than whom, and writes the page and its data. Errors are sentences."""
    try:
        CompareRequest.parse(arguments).answer()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"error: {error}")


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What is to be compared. runs: folders; files: summaries that were written before; project: on a server."""

    runs: tuple[Path, ...] = ()
    sweeps: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    project: str | None = None
    evaluations: int | None = None
    out: Path | None = None
    publish: bool = False
    arguments: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises ValueError for what it cannot be asked."""
        runs: list[Path] = []
        sweeps: list[Path] = []
        files: list[Path] = []
        settings: dict[str, Any] = {"arguments": tuple(arguments)}
        for argument in arguments:
            name, equals, value = argument.partition("=")
            match name if equals and not Path(argument).exists() else "":
                case "sweep":
                    sweeps.append(Path(value))
                case "wandb":
                    settings["project"] = value
                case "out":
                    settings["out"] = Path(value)
                case "evaluations" if value.isdecimal() and int(value) > 0:
                    settings["evaluations"] = int(value)
                case "publish" if value == "wandb":
                    settings["publish"] = True
                case "":
                    (files if argument.endswith(SUFFIXES) else runs).append(Path(argument))
                case _:
                    raise ValueError(f"compare does not know {argument!r}\n{USAGE}")
        if not (runs or sweeps or files or "project" in settings):
            raise ValueError(f"compare needs runs\n{USAGE}")
        if settings.get("publish") and "project" not in settings:
            raise ValueError("publish=wandb needs to know where: give wandb=ENTITY/PROJECT[/GROUP] as well")
        return cls(tuple(runs), tuple(sweeps), tuple(files), **settings)

    def answer(self) -> None:
        """Reads, compares, prints and writes."""
        from autoprune.comparison.compare_runs import compare as compared
        from autoprune.comparison.run_summary import write_summaries
        from autoprune.report.comparison_page import DATA, write_comparison_page
        from autoprune.report.comparison_terminal import print_comparison
        from autoprune.runs import RunFolder

        runs, missing = self.read()
        comparison = compared(runs, missing=missing, evaluations=self.evaluations)
        out = self.out or Path("runs") / f"{datetime.now(UTC):%Y-%m-%d}" / f"{datetime.now(UTC):%H-%M-%S}_comparison"
        out.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(out)
        folder.write_json(DATA, {**comparison, "arguments": list(self.arguments)})
        write_summaries(out / SUMMARIES, runs)
        result = folder.read_json(DATA)
        page = write_comparison_page(folder)
        print_comparison(result)
        print(f"page: {page}\nruns: {out / SUMMARIES}")
        if self.publish:
            print(f"report: {self.published(result)}")

    def read(self) -> "tuple[list[RunSummary], list[Missing]]":
        """Every run that is asked for, and the jobs without a result."""
        from autoprune.comparison.reading import SWEEP, read_run, read_sweep
        from autoprune.comparison.run_summary import read_summaries

        runs, missing = [], []
        for path in self.files:
            runs += read_summaries(path)
        for path in self.runs:
            if (path / SWEEP).is_file():
                raise ValueError(f"{path} is the folder of a sweep: give it as sweep={path}")
            runs.append(read_run(path, read_config=read_config))
        for path in self.sweeps:
            complete, without = read_sweep(path, read_config=read_config)
            runs += complete
            missing += [*without, *never_started(path)]
        if self.project is not None:
            from autoprune.comparison.server import Project, read_project

            if not self.publish or not runs:
                complete, without = read_project(Project.parse(self.project))
                runs, missing = runs + complete, missing + without
        return runs, missing

    def published(self, result: Any) -> str:
        """The address of the report that was made of it on the server."""
        from autoprune.comparison.server import Project, publish
        from autoprune.report.comparison_wording import agents_of, headline, pair_sentence, second_line

        top = [agent["label"] for agent in agents_of(result, "post_training")][:1]
        pairs = [pair for pair in result["post_training"]["pairs"] if pair["a"] in top]
        sentences = [f"{headline(result)}.", second_line(result)]
        sentences += [f"{pair_sentence(result, pair, 'post_training')}." for pair in pairs]
        project = Project.parse(str(self.project))
        return publish(project, title=f"Comparison: {project.group or project.name}", sentences=sentences)


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return settings  # type: ignore[no-any-return]


def never_started(sweep: Path) -> "list[Missing]":
    """The jobs that a sweep's command stands for, and that have no folder. Empty where a sweeper chooses its jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from autoprune.comparison.reading import JOB, SWEEP, Missing, job_folders

    if not (sweep / SWEEP).is_file():
        return []
    launched: Any = OmegaConf.load(sweep / SWEEP)
    if not str(launched.hydra.sweeper["_target_"]).endswith(".BasicSweeper"):
        return []
    parsed = OverridesParser.create().parse_overrides([str(override) for override in launched.hydra.overrides.task])
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    files = [folder / JOB / "overrides.yaml" for folder in job_folders(sweep)]
    there = {tuple(sorted(map(str, OmegaConf.load(file)))) for file in files if file.is_file()}
    return [
        Missing("", " ".join(overrides), "it was never started")
        for overrides in jobs
        if tuple(sorted(overrides)) not in there
    ]
