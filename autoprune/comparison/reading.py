"""Summaries from the folders of runs and of sweeps, and what is missing there."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.comparison.run_summary import (
    SENSITIVITY,
    UNIFORM,
    AnytimeCurve,
    MeasuredPlan,
    PolicyPlan,
    RunIncumbent,
    RunSummary,
    agent_name,
)
from autoprune.plan import PruningPlan
from autoprune.runs import JOB, RUN_FILE, RunFolder, resume_command

RESULT, CONFIG, FAILED = "result.json", "config.yaml", "failed.json"
SWEEP = "multirun.yaml"
ELSEWHERE = ("task", "data", "seed", "budget", "evaluations")  # a summary says these by itself
UNIMPORTANT = ("tracking", "threads", "hydra", "experiment")  # and these change no result
EXECUTION = ("workers", "pool", "address", "time_limit_s", "store")  # of evaluation: they change no number
NO_RECOVERY = "no_recovery"
SIGNS = {"accuracy": 1, "agreement": 1, "kl": -1, "loss": -1}  # of the metrics that scores are made of

Json = Mapping[str, Any]
ReadConfig = Callable[[Path], Json]  # config.yaml → its settings


@dataclass(frozen=True, slots=True)
class Missing:
    """A job without a result."""

    where: str
    """Its folder or address, where it has one."""
    what: str
    """The overrides that it was started with."""
    reason: str
    """Why there is no result."""


def read_run(path: Path, *, read_config: ReadConfig) -> RunSummary:
    """The summary of a complete run.

    Args:
        path: Of the run.
        read_config: Reads a run's configuration.

    Raises:
        FileNotFoundError: The run is not complete.
        ValueError: A file of it cannot be read.
    """
    run = RunFolder.open(path)
    if not run.has(RESULT):
        raise ValueError(f"{path} is a run without a result; `{resume_command(path)}` completes it, or leave it out")
    result = run.read_json(RESULT)
    if "judge" in result.get("failed", {}):
        raise ValueError(
            f"{path} was not judged ({result['failed']['judge']}); `{resume_command(path)}` tries it again"
        )
    config = read_config(path / CONFIG) if run.has(CONFIG) else {}
    return summary_of(result, run.read_json(RUN_FILE), config, where=str(path))


def read_sweep(path: Path, *, read_config: ReadConfig) -> tuple[list[RunSummary], list[Missing]]:
    """The runs of a sweep's folder, and its jobs without one.

    Args:
        path: Of the sweep.
        read_config: Reads a run's configuration.

    Raises:
        FileNotFoundError: There are no jobs.
    """
    reasons = {job: _unfinished(job) for job in job_folders(path)}
    if not reasons:
        raise FileNotFoundError(
            f"{path} holds no runs: no folder in it has a {RUN_FILE}. A sweep's folder is what "
            "`autoprune search -m …` fills; hydra.sweep.dir chooses it"
        )
    return (
        [read_run(job, read_config=read_config) for job, reason in reasons.items() if reason is None],
        [Missing(str(job), _overrides(job), reason) for job, reason in reasons.items() if reason is not None],
    )


def job_folders(path: Path) -> Iterator[Path]:
    """The folders of the jobs in a sweep's, those that never became a run included, by name."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    for folder, inside, files in os.walk(path):
        if RUN_FILE in files or JOB in inside:
            inside.clear()
            yield Path(folder)
        inside.sort()


def summary_of(result: Json, run: Json, config: Json, *, where: str) -> RunSummary:
    """What the files of one run say together.

    Args:
        result: What `result.json` holds.
        run: What `run.json` holds.
        config: The run's settings, resolved.
        where: What an error calls the run.

    Raises:
        ValueError: It is damaged or of an earlier version.
    """
    try:
        return _summary(result, run, config)
    except (KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ValueError(f"the result in {where} is damaged or of an earlier version ({kind}: {error})") from error


def settings_of(config: Json) -> dict[str, Any]:
    """By dotted name, what a run's agent and its conditions are: everything that may change its result."""
    sections = {name: value for name, value in config.items() if name not in (*ELSEWHERE, *UNIMPORTANT)}
    if isinstance(evaluation := sections.get("evaluation"), Mapping):
        sections["evaluation"] = {key: value for key, value in evaluation.items() if key not in EXECUTION}
    nested = {name: value for name, value in sections.items() if isinstance(value, Mapping)}
    single = {name: value for name, value in sections.items() if name not in nested and value is not None}
    return single | {key: item for name, value in nested.items() for key, item in _flat(value, name)}


def _summary(result: Json, run: Json, config: Json) -> RunSummary:
    networks = result["networks"]
    score = str((config.get("score") or {}).get("_target_", "kl")).rpartition(".")[2]
    recovers = not str(config.get("recover", {}).get("_target_", "")).endswith(NO_RECOVERY)
    seconds, dense, text = result.get("search_seconds") or {}, networks["dense"], result["budget"]["text"]
    own = _measured(networks["searched"], score, recovers=recovers)
    data = [run.get("data"), own.plan.groups, own.plan.units]
    return RunSummary(
        task=result["task"],
        agent=agent_name(str(result["agent"])),
        seed=int(result["seed"]),
        budget=text if isinstance(text, str) else ", ".join(map(str, text)),
        evaluations=int(result["evaluations"]["limit"]),
        spent=int(result["evaluations"]["spent"]),
        budget_cost=str(result["budget"].get("cost", "macs")),
        score_name=score,
        network=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16],
        dense={**dense["cost"], "accuracy": dense["before"]["accuracy"]},
        own=own,
        baselines={
            name: _measured(networks[name], score, recovers=recovers)
            for name in (UNIFORM, SENSITIVITY)
            if name in networks
        },
        version=str((run.get("versions") or {}).get("autoprune") or ""),
        anytime=_anytime(result.get("anytime")),
        seconds=seconds.get("judging"),
        agent_seconds=seconds.get("agent"),
        optimum=result.get("optimum"),
        settings=settings_of(config),
        policy=_policy(result.get("policy")) if UNIFORM in networks else None,
    )


def _measured(record: Json, score: str, *, recovers: bool) -> MeasuredPlan:
    held_out = {key: float(value) for key, value in record["held_out"].items()}
    recorded, after = record.get("score"), record.get("after")  # runs of earlier versions have the metrics alone
    return MeasuredPlan(
        plan=PruningPlan.from_json(record["plan"]),
        score=float(SIGNS[score] * held_out[score] if recorded is None else recorded),
        held_out=held_out,
        test=dict(record["before"]),
        recovered=dict(after) if recovers and after is not None else None,
        costs=dict(record["cost"]),
    )


def _policy(record: Json | None) -> PolicyPlan | None:
    if record is None:
        return None
    gap = record["gap"]
    return PolicyPlan(
        plan=PruningPlan.from_json(record["plan"]),
        score=record["score"],
        uniform=record["uniform"],
        best=None if gap is None else record["score"] + gap,
    )


def _anytime(record: Json | None) -> AnytimeCurve | None:
    if record is None:
        return None
    names = ("evaluation", "score", "held_out", "seconds", "agent_seconds")
    judged = [entry for entry in record["incumbents"] if entry["held_out"] is not None]
    references = {name: score for name, score in record["references"].items() if score is not None}
    incumbents = tuple(RunIncumbent(**{name: entry[name] for name in names}) for entry in judged)
    return AnytimeCurve(incumbents, references) if incumbents else None


def _unfinished(job: Path) -> str | None:
    """Why a job has no result; None where it has one."""
    if (job / RESULT).is_file():
        return None
    if (job / FAILED).is_file():
        return f"failed: {RunFolder(job).read_json(FAILED).get('error', 'it does not say why')}"
    if not (job / RUN_FILE).is_file():
        return "it ended before its search began"
    evaluations = sum(line["phase"] != "baseline" for line in RunFolder(job).read_lines("history.jsonl"))
    return f"cut off after {evaluations} evaluations"


def _overrides(job: Path) -> str:
    """What a job was started with, as far as it wrote that down."""
    for file in (RUN_FILE, FAILED):
        if (job / file).is_file():
            overrides = RunFolder(job).read_json(file).get("overrides")
            if isinstance(overrides, list):
                return " ".join(map(str, overrides))
    lines = job / JOB / "overrides.yaml"  # of "- key=value"
    return " ".join(line.removeprefix("- ") for line in lines.read_text().splitlines()) if lines.is_file() else ""


def _flat(value: Json, name: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}.{key}")
        else:
            yield f"{name}.{key}", item
