"""Trials from the folders of runs and of sweeps, and what is missing there."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.comparison.run_summary import SENSITIVITY, UNIFORM, Anytime, Pruned, RunIncumbent, RunSummary
from autoprune.plan import PruningPlan
from autoprune.runs import RUN_FILE, RunFolder

RESULT, CONFIG, FAILED, JOB = "result.json", "config.yaml", "failed.json", ".hydra"
SWEEP = "multirun.yaml"
ELSEWHERE = ("task", "data", "seed", "budget", "evaluations")  # a trial says these by itself
UNIMPORTANT = ("tracking", "threads", "hydra", "experiment")  # and these change no result
EXECUTION = ("workers", "pool", "address", "time_limit_s", "store")  # of evaluation: they change no number
NO_RECOVERY = "no_recovery"
SIGNS = {"accuracy": 1, "agreement": 1, "kl": -1, "loss": -1}  # of the metrics that scores are made of

Json = Mapping[str, Any]
ReadConfig = Callable[[Path], Json]  # config.yaml → its settings


@dataclass(frozen=True, slots=True)
class Missing:
    """A job without a result: where it is, what it was, and why there is none."""

    where: str
    what: str
    reason: str


def read_run(path: Path, *, read_config: ReadConfig) -> RunSummary:
    """The trial of a complete run. Raises FileNotFoundError or ValueError for anything else."""
    run = RunFolder.open(path)
    if not run.has(RESULT):
        raise ValueError(
            f"{path} is a run without a result; `autoprune search resume={path}` completes it, or leave it out"
        )
    result = run.read_json(RESULT)
    if "judge" in result.get("failed", {}):
        raise ValueError(
            f"{path} was not judged ({result['failed']['judge']}); `autoprune search resume={path}` tries it again"
        )
    config = read_config(path / CONFIG) if run.has(CONFIG) else {}
    return trial_of(result, run.read_json(RUN_FILE), config, where=str(path))


def read_sweep(path: Path, *, read_config: ReadConfig) -> tuple[list[RunSummary], list[Missing]]:
    """The trials of a sweep's folder, and its jobs without one. Raises FileNotFoundError where there are no jobs."""
    trials, missing = [], []
    jobs = list(job_folders(path))
    if not jobs:
        raise FileNotFoundError(
            f"{path} holds no runs: no folder in it has a {RUN_FILE}. A sweep's folder is what "
            "`autoprune search -m …` fills; hydra.sweep.dir chooses it"
        )
    for job in jobs:
        reason = _unfinished(job)
        if reason is None:
            trials.append(read_run(job, read_config=read_config))
        else:
            missing.append(Missing(str(job), _overrides(job), reason))
    return trials, missing


def job_folders(path: Path) -> Iterator[Path]:
    """The folders of the jobs in a sweep's, those that never became a run included, by name."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    for folder, inside, files in os.walk(path):
        if RUN_FILE in files or JOB in inside:
            inside.clear()
            yield Path(folder)
        inside.sort()


def trial_of(result: Json, run: Json, config: Json, *, where: str) -> RunSummary:
    """What result.json, run.json and the configuration say together. Raises ValueError that names `where`."""
    try:
        return _trial(result, run, config)
    except (KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ValueError(f"the result in {where} is damaged or of an earlier version ({kind}: {error})") from error


def _trial(result: Json, run: Json, config: Json) -> RunSummary:
    networks, score = result["networks"], _score_name(config)
    recovers = not str(config.get("recover", {}).get("_target_", "")).endswith(NO_RECOVERY)
    spent, dense = result.get("search_seconds") or {}, networks["dense"]
    own = _pruned(networks["searched"], score, recovers=recovers)
    return RunSummary(
        task=result["task"],
        agent=result["agent"],
        seed=int(result["seed"]),
        budget=_budget(result["budget"]),
        evaluations=int(result["evaluations"]["limit"]),
        spent=int(result["evaluations"]["spent"]),
        budget_cost=str(result["budget"].get("cost", "macs")),
        score_name=score,
        network=_digest([run.get("data"), own.plan.groups, own.plan.units]),
        dense={**dense["cost"], "accuracy": dense["before"]["accuracy"]},
        own=own,
        baselines={
            name: _pruned(networks[name], score, recovers=recovers)
            for name in (UNIFORM, SENSITIVITY)
            if name in networks
        },
        anytime=_anytime(result.get("anytime")),
        seconds=spent.get("judging"),
        agent_seconds=spent.get("agent"),
        optimum=result.get("optimum"),
        settings=settings_of(config),
    )


def settings_of(config: Json) -> dict[str, Any]:
    """By dotted name, what a run's agent and its conditions are: everything that may change what is found."""
    found: dict[str, Any] = {}
    for section, value in config.items():
        if section in (*ELSEWHERE, *UNIMPORTANT):
            continue
        if isinstance(value, Mapping):
            kept = {k: v for k, v in value.items() if section != "evaluation" or k not in EXECUTION}
            found |= dict(_flat(kept, section))
        elif value is not None:
            found[section] = value
    return found


def _pruned(record: Json, score: str, *, recovers: bool) -> Pruned:
    held_out = {key: float(value) for key, value in record["held_out"].items()}
    known = record.get("score")  # runs of earlier versions have the metrics alone
    after = record.get("after")
    return Pruned(
        plan=PruningPlan.from_json(record["plan"]),
        score=float(SIGNS[score] * held_out[score] if known is None else known),
        held_out=held_out,
        test=dict(record["before"]),
        recovered=dict(after) if recovers and after is not None else None,
        costs=dict(record["cost"]),
    )


def _anytime(record: Json | None) -> Anytime | None:
    if record is None:
        return None
    names = ("evaluation", "score", "held_out", "seconds", "agent_seconds")
    known = [entry for entry in record["incumbents"] if entry["held_out"] is not None]
    references = {name: score for name, score in record["references"].items() if score is not None}
    incumbents = tuple(RunIncumbent(**{name: entry[name] for name in names}) for entry in known)
    return Anytime(incumbents, references) if incumbents else None


def _score_name(config: Json) -> str:
    target = str((config.get("score") or {}).get("_target_", "kl"))
    return target.rpartition(".")[2]


def _budget(record: Json) -> str:
    text = record["text"]
    return text if isinstance(text, str) else ", ".join(map(str, text))


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
    listed = job / JOB / "overrides.yaml"  # lines of "- key=value"
    return " ".join(line.removeprefix("- ") for line in listed.read_text().splitlines()) if listed.is_file() else ""


def _flat(value: Json, name: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}.{key}")
        else:
            yield f"{name}.{key}", item


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
