"""`autoprune search`: one job, or one that was cut off."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.command_settings import SearchSettings
from autoprune.cli.foreign import TARGET, own_command, trusted_config
from autoprune.cli.parts import chosen_name
from autoprune.cli.session import Session, end_interrupted, run_command
from autoprune.cli.sweep import SweepJob, resume_hint, value_of

if TYPE_CHECKING:
    from autoprune.problem.problem import Problem

log = logging.getLogger(__name__)


def search(config: DictConfig) -> float | None:
    """One job. Returns the score of the search's own network on held-out search data, which a sweeper may maximise.

    A job of a sweep goes on with what stands in its folder, and returns None where it fails, so that the others run.
    """
    launch = Launch.by_hydra(config)
    once = partial(_search, config, launch)
    if launch.group is None:
        return _run_once(partial(once, resumed=False), launch.folder)
    try:
        return SweepJob(launch.folder, config, launch.overrides).result(once)
    except KeyboardInterrupt as error:
        end_interrupted(error, lambda: resume_hint(Path(HydraConfig.get().sweep.dir)))


def resume(overrides: list[str]) -> None:
    """Goes on with a run: it does again what it did, as the evaluation store answers, and then what it had not done.

    Args:
        overrides: `resume=RUN`, and the targets in the run's configuration that are not autoprune's and are trusted,
            such as `task._target_=my_module.my_task`.
    """
    logging.basicConfig(format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s", level=logging.INFO)
    folders = [override.partition("=")[2] for override in overrides if override.startswith("resume=")]
    trusted = [override for override in overrides if override.partition("=")[0].endswith(f".{TARGET}")]
    folder = Path(folders[0])

    def go_on() -> float:
        if len(folders) + len(trusted) != len(overrides) or len(folders) > 1:
            raise ValueError(
                "a run is resumed as it was started: resume=RUN takes no other override than the targets that are not "
                "autoprune's own, such as task._target_=my_module.my_task"
            )
        launch = Launch.of_run(folder)
        from autoprune.runs import resume_command

        config = trusted_config(folder / "config.yaml", trusted, command=resume_command(folder))
        if trusted:
            sys.path.insert(0, str(Path.cwd()))  # where the person's own modules are
        return _search(OmegaConf.create(config), launch, resumed=True)

    _run_once(go_on, folder)


def _run_once(job: Callable[[], float], folder: Path) -> float:
    return run_command(job, interrupted=lambda: write_partial_report(folder), failed=lambda: _go_on(folder))


@dataclass(frozen=True, slots=True)
class Launch:
    """What Hydra knows of a job beside its configuration."""

    folder: Path
    """The run's."""
    agent: str
    """Its name in conf/agent, or that of the function that is its `_target_`."""
    group: str | None
    """The sweep that it is a job of."""
    overrides: list[str]
    """What the person set."""

    @classmethod
    def by_hydra(cls, config: DictConfig) -> Self:
        """The launch of the job that runs."""
        hydra = HydraConfig.get()
        group = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
        target = str(OmegaConf.select(config, f"agent.{TARGET}"))
        agent = chosen_name("agent", choice=str(hydra.runtime.choices.get("agent")), target=target)
        return cls(Path(hydra.runtime.output_dir), agent, group, list(hydra.overrides.task))

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """The launch of a run that was cut off. Raises FileNotFoundError or ValueError where there is none."""
        from autoprune.runs import RunFolder

        run = RunFolder.open(folder)
        record = run.read_json("run.json")
        if run.has("result.json") and not run.read_json("result.json").get("failed"):
            raise ValueError(f"{folder} is complete; `autoprune show {folder}` shows it")
        if not os.access(folder, os.W_OK):
            raise ValueError(
                f"nothing can be written into {folder}, where the run would go on; copy it to a folder that can be "
                "written, and resume the copy"
            )
        if not run.has("config.yaml"):
            raise ValueError(f"{folder} has no config.yaml, so it cannot be resumed; start it again")
        return cls(folder, record["agent"], record["group"], record["overrides"])


def _search(config: DictConfig, launch: Launch, *, resumed: bool) -> float:
    session = Session.begin(config, SearchSettings, launch.folder, launch.overrides, command="autoprune search")
    _check_constraint(session.settings)
    _check_policy(session.settings)

    from autoprune.pipeline import Job
    from autoprune.records import Ledgers
    from autoprune.report.page import write_report
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder
    from autoprune.tracked import tracked_config

    settings, folder = session.settings, session.folder
    if not resumed:
        RunFolder.check_free(folder)
    allocator = session.prepare_process()
    agent, recover, quantize = (session.part(name) for name in ("agent", "recover", "quantize"))
    task = session.task()
    print(task.describe())
    problem = session.prepared(task)
    measured = {**problem.measured, "freed_memory_kept": allocator}
    for sentence in filter(None, _prepared_sentences(problem, measured)):
        print(sentence)
    record = _record(session, launch, problem, measured)
    run = RunFolder.open(folder) if resumed else session.new_run()
    before = run.read_json("run.json") if resumed else {}
    if resumed:
        record |= {"started": before["started"], "resumed": [*before.get("resumed", []), record["started"]]}
        _check_same(before, record)
    try:
        with session.tracked(
            group=launch.group or task.name,
            job_type="search",
            config=tracked_config(dict(settings), record),
            run_id=before.get("tracker"),
            tags=(launch.agent,),
        ) as tracker:
            run.write_json("run.json", {**record, "tracker": tracker.run_id})
            job = Job(
                problem,
                search=agent,
                recover=recover,
                quantize=quantize,
                agent=launch.agent,
                evaluations=settings["evaluations"],
                seed=settings["seed"],
                compared_with=tuple(settings["baselines"]),
                time_limit_s=settings.get("time_limit_s"),
                announce=print,
                run=run,
                ledgers=Ledgers.of(run),
                tracker=tracker,
            )
            result = job.execute()
            tracker.page("report", write_report(run))
    finally:
        problem.close()
    print_result(run)
    print(f"report: {folder / 'report.html'}")
    _check_complete(result, folder)
    return value_of(result)


def _prepared_sentences(problem: "Problem", measured: Mapping[str, Any]) -> tuple[str, ...]:
    """What preparing the task decided: how plans are judged, the steps of levels, and the repair."""
    from autoprune.records import describe_measured, describe_repair, describe_structure
    from autoprune.report.wording import level_steps

    steps = level_steps(describe_structure(problem)["groups"])
    levels = f"levels in steps {steps} (structure.round_to={problem.spec.structure.round_to})" if steps else ""
    return describe_measured(measured), levels, describe_repair(measured["repair"])


def _record(session: Session, launch: Launch, problem: "Problem", measured: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says."""
    from autoprune.records import describe_budget, resolved_step

    return session.record(problem.task) | {
        "agent": launch.agent,
        "group": launch.group,
        "budget": describe_budget(problem),
        "round_to": resolved_step(problem.structure),
        "measured": measured,
        "preparation_seconds": problem.preparation_seconds,
        "judged": problem.task.judged,
        "device": None if problem.spec.device is None else problem.spec.device.name,
    }


def _check_complete(result: Mapping[str, Any], folder: Path) -> None:
    """Raises RuntimeError where stages after the search failed."""
    if result["failed"]:
        stages = "\n".join(f"  {stage}: {reason}" for stage, reason in result["failed"].items())
        raise RuntimeError(
            f"the search is complete and everything that it made stands in {folder}, but these stages failed:\n{stages}"
        )


def _check_constraint(settings: Mapping[str, Any]) -> None:
    """Raises ValueError where the budget is to be kept in a way that only learned agents know."""
    name = settings["constraint"][TARGET].rpartition(".")[2]
    if name != "Projection" and "constraint" not in settings["agent"]:
        raise ValueError(
            f"constraint={name.lower()} is what an agent's reward says of the budget, and this search has none: every "
            "plan that it asks for meets the budget. Set constraint=projection, or an agent that learns, such as ppo"
        )


def _check_policy(settings: Mapping[str, Any]) -> None:
    """Raises ValueError where there is a policy that the search cannot use."""
    if settings["policy"] is not None and "policy" not in settings["agent"]:
        raise ValueError(
            f"policy={settings['policy']} is where agent=transferable goes on learning, what agent=model_based begins "
            "with, or what `autoprune apply` uses; this search has no use for it. Set policy=null, or one of these"
        )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A resumed run is the same run. Raises ValueError where its data are not; other versions are a warning."""
    if before["data"] != now["data"]:
        raise ValueError(f"the task's data are not those that the run began with: {before['data']}, now {now['data']}")
    for what in ("versions", "machine", "measured"):
        if before[what] != now[what]:
            changed = {k: (before[what].get(k), v) for k, v in now[what].items() if before[what].get(k) != v}
            log.warning("resumed with other %s than before, so it may take another way: %s", what, changed)


def write_partial_report(folder: Path) -> str:
    """Writes a report of a run that was interrupted, and returns a sentence on what there is."""
    if not (folder / "run.json").exists():
        return "Nothing was evaluated yet."

    from autoprune.report.page import write_report
    from autoprune.runs import RunFolder

    run, report = RunFolder.open(folder), ", a report so far in report.html"
    try:
        write_report(run)
    except OSError:  # the disk is full, or its folder is gone
        report = ""
    return (
        f"{folder} holds everything so far: {len(run.read_lines('history.jsonl'))} evaluations in history.jsonl, the "
        f"configuration in config.yaml{report}. `{shlex.join(['autoprune', 'show', str(folder)])}` shows it. "
        f"{_go_on(folder)}"
    )


def _go_on(folder: Path) -> str:
    """How one goes on with a run; empty where none has begun."""
    return f"`{own_command(folder)}` goes on." if (folder / "run.json").exists() else ""
