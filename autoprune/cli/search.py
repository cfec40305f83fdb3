"""`autoprune search`: one job, or one that was cut off."""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.parts import instantiate_part, run_command, spec_of, store_folder, task_of
from autoprune.cli.sweep import SweepJob, resume_hint, value_of

PARTS = ("agent", "recover", "tracking")

log = logging.getLogger(__name__)


def search(config: DictConfig) -> float | None:
    """One job. Returns the score of the search's own network on held-out search data, which a sweeper may maximise.

    A job of a sweep goes on with what stands in its folder, and returns None where it fails, so that the others run.
    """
    launch = Launch.by_hydra()
    once = partial(_search, config, launch)
    if launch.group is None:
        return run_command(partial(once, resumed=False), interrupted=lambda: write_partial_report(launch.folder))
    try:
        return SweepJob(launch.folder, config, launch.overrides).result(once)
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. {resume_hint(Path(HydraConfig.get().sweep.dir))}")


def resume(overrides: list[str]) -> None:
    """Goes on with a run: it does again what it did, as the evaluation store answers, and then what it had not done."""
    sys.path.insert(0, str(Path.cwd()))
    resumed, others = [o.partition("=")[2] for o in overrides if o.startswith("resume=")], len(overrides) - 1
    if len(resumed) != 1 or others:
        sys.exit("error: a run is resumed as it was started: autoprune search resume=RUN takes no other override")
    folder = Path(resumed[0])
    logging.basicConfig(format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s", level=logging.INFO)

    def go_on() -> float:
        launch = Launch.of_run(folder)
        return _search(OmegaConf.load(folder / "config.yaml"), launch, resumed=True)  # type: ignore[arg-type]

    run_command(go_on, interrupted=lambda: write_partial_report(folder))


@dataclass(frozen=True, slots=True)
class Launch:
    """What Hydra knows of a job beside its configuration."""

    folder: Path
    agent: str
    group: str | None
    overrides: list[str]

    @classmethod
    def by_hydra(cls) -> Self:
        known = HydraConfig.get()
        group = Path(known.sweep.dir).name if known.mode == RunMode.MULTIRUN else None
        return cls(Path(known.runtime.output_dir), known.runtime.choices["agent"], group, list(known.overrides.task))

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """The launch of a run that was cut off. Raises FileNotFoundError or ValueError where there is none."""
        from autoprune.runs import RunFolder

        run = RunFolder.open(folder)
        record = run.read_json("run.json")
        if run.has("result.json") and not run.read_json("result.json").get("failed"):
            raise ValueError(f"{folder} is complete; `autoprune show {folder}` shows it")
        if not run.has("config.yaml"):
            raise ValueError(f"{folder} has no config.yaml, so it cannot be resumed; start it again")
        return cls(folder, record["agent"], record["group"], record["overrides"])


def _search(config: DictConfig, launch: Launch, *, resumed: bool) -> float:
    import torch

    from autoprune.machine_cache import MeasurementCache, cache_dir, choose_allocator
    from autoprune.pipeline import Job
    from autoprune.problem.problem import Problem
    from autoprune.records import Ledgers, describe_budget, describe_measured
    from autoprune.report.page import write_report
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder, machine, versions
    from autoprune.tracked import tracked_config

    folder = launch.folder
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    settings["evaluation"]["store"] = store_folder(settings["evaluation"]["store"], folder)
    _check_constraint(settings)
    torch.set_num_threads(settings["threads"] or os.cpu_count() or 1)
    allocator = choose_allocator(MeasurementCache(cache_dir()))
    torch.manual_seed(settings["seed"])  # autoprune passes its generators around; third parties may draw from this one
    parts = {name: instantiate_part(settings, name) for name in PARTS}
    task = task_of(settings["task"], settings.get("data"))
    print(task.describe())
    problem = Problem.prepare(task, spec_of(settings), seed=settings["seed"])
    measured = {**problem.measured, "freed_memory_kept": allocator}
    print(describe_measured(measured))
    run = RunFolder.open(folder) if resumed else RunFolder.create(folder)
    record = {
        "name": folder.name,
        "task": task.name,
        "agent": launch.agent,
        "group": launch.group,
        "seed": settings["seed"],
        "budget": describe_budget(problem),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(),
        "measured": measured,
        "judged": task.judged,
        "device": None if problem.spec.device is None else problem.spec.device.name,
        "data": task.data.digests,
        "overrides": launch.overrides,
    }
    before = run.read_json("run.json") if resumed else {}
    if resumed:
        record |= {"started": before["started"], "resumed": [*before.get("resumed", []), record["started"]]}
        _check_same(before, record)
    else:
        run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    tracker = parts["tracking"](
        folder,
        name=folder.name,
        group=launch.group or task.name,
        job_type="search",
        config=tracked_config(OmegaConf.to_container(config, resolve=True), record),  # type: ignore[arg-type]
        run_id=before.get("tracker"),
    )
    run.write_json("run.json", {**record, "tracker": tracker.run_id})
    failed = True
    try:
        job = Job(
            problem,
            search=parts["agent"],
            recover=parts["recover"],
            agent=launch.agent,
            evaluations=settings["evaluations"],
            seed=settings["seed"],
            run=run,
            ledgers=Ledgers.of(run),
            tracker=tracker,
        )
        result = job.execute()
        tracker.page("report", write_report(run))
        failed = False
    finally:
        problem.close()
        tracker.close(failed=failed)
    print_result(run)
    print(f"report: {folder / 'report.html'}")
    if result["failed"]:
        stages = "\n".join(f"  {stage}: {reason}" for stage, reason in result["failed"].items())
        raise RuntimeError(
            f"the search is complete and everything that it made stands in {folder}, but these stages "
            f"failed:\n{stages}\n"
            f"`autoprune search resume={folder}` tries them again"
        )
    return value_of(result)


def _check_constraint(settings: Mapping[str, Any]) -> None:
    """Raises ValueError where the budget is to be kept in a way that only learned agents know."""
    name = settings["constraint"]["_target_"].rpartition(".")[2]
    if name != "Projection" and "constraint" not in settings["agent"]:
        raise ValueError(
            f"constraint={name.lower()} is what an agent's reward says of the budget, and this search has none: every "
            "plan that it asks for meets the budget. Set constraint=projection, or an agent that learns, such as ppo"
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
    """Writes a report of a run that was interrupted, and says what there is."""
    from autoprune.report.page import write_report
    from autoprune.runs import RunFolder

    if not (folder / "run.json").exists():
        return "Nothing was evaluated yet."
    run = RunFolder.open(folder)
    write_report(run)
    return (
        f"{folder} holds everything so far: {len(run.read_lines('history.jsonl'))} evaluations in history.jsonl, the "
        f"configuration in config.yaml, a report so far in report.html. `autoprune show {folder}` shows it, and "
        f"`autoprune search resume={folder}` goes on."
    )
