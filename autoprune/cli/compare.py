"""`autoprune compare`: agents on equal terms, from runs that are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml

from autoprune.cli.arguments import new_folder, read_arguments
from autoprune.cli.composition import hydra_override
from autoprune.cli.foreign import read_config
from autoprune.cli.session import run_command
from autoprune.cli.validation import Section
from autoprune.ranges import Count, Text

if TYPE_CHECKING:
    from autoprune.comparison.reading import Missing
    from autoprune.comparison.run_summary import RunSummary
    from autoprune.runs import RunFolder

USAGE = """usage: autoprune compare RUN … | sweep=DIR | SUMMARIES.jsonl[.gz] … | wandb=ENTITY/PROJECT[/GROUP]
                         [by=both|search|policy] [evaluations=N] [out=DIR] [publish=wandb]

Which agent is better, and at how many seeds can that be said? Runs, sweeps, files of summaries that were written before
and a project on a server may be given together. by=policy ranks what learned policies propose by themselves, by=search
the best plans that searches met, by=both (the default) shows both. evaluations=N compares what was best
after N evaluations. out= is the folder of the page and its data; publish=wandb makes a report of it in the project."""
SUMMARIES, SUFFIXES = "run_summaries.jsonl", (".jsonl", ".gz")


class CompareSettings(Section):
    """What is written KEY=VALUE."""

    sweep: tuple[Text, ...] = ()
    wandb: Text | None = None
    evaluations: Count | None = None
    by: Literal["both", "search", "policy"] = "both"
    out: Text | None = None
    publish: Literal["wandb"] | None = None


def compare(arguments: Sequence[str]) -> None:
    """Prints who is better than whom, and writes the page and its data. Errors are sentences."""
    run_command(lambda: CompareRequest.parse(arguments).answer())


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What is to be compared."""

    runs: tuple[Path, ...] = ()
    """Run folders."""
    sweeps: tuple[Path, ...] = ()
    """Folders of sweeps."""
    files: tuple[Path, ...] = ()
    """Summaries that were written before."""
    project: str | None = None
    """On a server: ENTITY/PROJECT[/GROUP]."""
    evaluations: int | None = None
    """After how many evaluations; None: all of them."""
    by: Literal["both", "search", "policy"] = "both"
    """What ranks agents: the best plans that they met, their policies' own, or the first beside the second."""
    out: Path | None = None
    """The folder that is written."""
    publish: bool = False
    """Whether a report is made on the server."""
    arguments: tuple[str, ...] = ()
    """As they were given."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises ValueError for what it cannot be asked."""
        paths, settings = read_arguments(arguments, CompareSettings, command="autoprune compare")
        if not (paths or settings["sweep"] or settings["wandb"]):
            raise ValueError(f"compare needs runs\n{USAGE}")
        if settings["publish"] and not settings["wandb"]:
            raise ValueError("publish=wandb needs to know where: give wandb=ENTITY/PROJECT[/GROUP] as well")
        return cls(
            runs=tuple(Path(path) for path in paths if not path.endswith(SUFFIXES)),
            sweeps=tuple(map(Path, settings["sweep"])),
            files=tuple(Path(path) for path in paths if path.endswith(SUFFIXES)),
            project=settings["wandb"],
            evaluations=settings["evaluations"],
            by=settings["by"],
            out=None if settings["out"] is None else Path(settings["out"]),
            publish=settings["publish"] is not None,
            arguments=tuple(arguments),
        )

    def answer(self) -> None:
        """Reads, compares, prints and writes."""
        from autoprune.comparison.compare_runs import compare as compared
        from autoprune.comparison.run_summary import write_summaries
        from autoprune.report.comparison_page import DATA, write_comparison_page
        from autoprune.report.comparison_terminal import print_comparison
        from autoprune.report.progress import announced
        from autoprune.report.wording import counted
        from autoprune.runs import RunFolder

        if trainings := self.trainings():
            from autoprune.report.training_page import headline, write_trainings_comparison

            written = write_trainings_comparison(trainings, new_folder(self.out, "comparison"))
            print(f"{headline(trainings)}.\npage: {written}")
            return
        with announced("reading runs"):
            runs, missing = self.read()
        with announced(f"comparing {counted(len(runs), 'run')}"):
            comparison = compared(runs, missing=missing, evaluations=self.evaluations, by=self.by)
        out = new_folder(self.out, "comparison")
        folder = RunFolder(out)
        folder.write_json(DATA, {**comparison, "arguments": list(self.arguments)})
        write_summaries(out / SUMMARIES, runs)
        result = folder.read_json(DATA)
        page = write_comparison_page(folder)
        print_comparison(result)
        print(f"page: {page}\nruns: {out / SUMMARIES}")
        if self.publish:
            print(f"report: {self.published(result)}")

    def trainings(self) -> list[dict[str, Any]]:
        """The results of runs that pruned while they trained; empty where these are searches.

        Raises:
            ValueError: Some are and others are not, or one of them is not complete.
        """
        from autoprune.comparison.reading import RESULT, job_folders
        from autoprune.report.training_page import KIND
        from autoprune.runs import RunFolder

        folders = [*self.runs, *(job for sweep in self.sweeps for job in job_folders(sweep))]
        commands = {path: _command_of(RunFolder(path)) for path in folders}
        ours = [path for path, command in commands.items() if command in ("train-pruned", "tickets")]
        if not ours:
            return []
        if others := [str(path) for path in folders if path not in ours] + [str(path) for path in self.files]:
            raise ValueError(f"{ours[0]} was pruned while it trained, and {others[0]} was not; compare them separately")
        complete = [path for path in ours if RunFolder(path).has(RESULT)]
        for path in set(ours) - set(complete):
            print(
                f"{path} is not complete and left out; its command goes on with {hydra_override('hydra.run.dir', path)}"
            )
        if not complete:
            raise ValueError(f"none of the {len(ours)} runs has a result yet; complete them first")
        results = [RunFolder(path).read_json(RESULT) for path in complete]
        return [result for result in results if result.get("kind") == KIND]

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


def _command_of(run: "RunFolder") -> str | None:
    """Which command made a run, where it says so."""
    return run.read_json("run.json").get("command") if run.has("run.json") else None


def never_started(sweep: Path) -> "list[Missing]":
    """The jobs that a sweep's command stands for, and that have no folder. Empty where a sweeper chooses its jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from autoprune.comparison.reading import SWEEP, Missing, job_folders
    from autoprune.runs import JOB

    if not (sweep / SWEEP).is_file():
        return []
    launched = read_config(sweep / SWEEP).get("hydra", {})
    if not str(launched["sweeper"]["_target_"]).endswith(".BasicSweeper"):
        return []
    parsed = OverridesParser.create().parse_overrides([str(override) for override in launched["overrides"]["task"]])
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    files = [folder / JOB / "overrides.yaml" for folder in job_folders(sweep)]
    there = {tuple(sorted(map(str, yaml.safe_load(file.read_text())))) for file in files if file.is_file()}
    return [
        Missing("", " ".join(overrides), "it was never started")
        for overrides in jobs
        if tuple(sorted(overrides)) not in there
    ]
