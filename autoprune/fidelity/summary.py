"""What the lines of a fidelity study add up to: `fidelity.json`, made from the other files and the scores alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.evaluation.judge import Score
from autoprune.fidelity.proxies import PROXIES, SINGLES, losses_alone, metrics_of
from autoprune.fidelity.rank_agreement import (
    FEWEST,
    Floats,
    SeedNoise,
    additivity,
    better_half,
    chance,
    estimate,
    kendall,
    pearson,
    spearman,
    verdict,
)
from autoprune.fidelity.recommendation import BAR, Choice, recommend
from autoprune.fidelity.truth import TRUTH, trials
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng

PLANS, STUDY, SECONDS, FIDELITY = "plans.json", "study.json", "seconds.jsonl", "fidelity.json"
TRUTHS = {"accuracy": 1, "loss": -1, "kl": -1}  # what recovery is judged by; −1: lower is better
Json = dict[str, Any]
Records = Sequence[Mapping[str, Any]]


def summarise(run: RunFolder, *, scores: Mapping[str, Score]) -> Json:
    """Writes `fidelity.json` from what stands in the folder, all of it or the part that was measured so far."""
    study, plans = run.read_json(STUDY), run.read_json(PLANS)
    wanted = {key: None for level in study["levels"] for key in _wanted(level, study)}
    truth = [record for record in run.read_lines(TRUTH) if _key(record) in wanted]
    proxies = run.read_lines(PROXIES)
    budgets = {
        level["budget"]: _budget(level, truth=truth, proxies=proxies, scores=scores) for level in study["levels"]
    }
    main, length = study["levels"][0]["budget"], str(max(study["lengths"]))
    result = {
        **study,
        "run": run.read_json("run.json") if run.has("run.json") else {},
        "trials": {"done": len({_key(record) for record in truth}), "of": len(wanted)},
        "main": {"budget": main, "length": int(length)},
        "scores": list(scores),
        "bar": BAR,
        "seconds": _median_seconds(run.read_lines(SECONDS)),
        "budgets": budgets,
        "additivity": _additivity(plans.get(main, []), study=study, proxies=proxies, singles=run.read_lines(SINGLES)),
        "recommendation": _recommendation(budgets[main], length, study=study),
    }
    run.write_json(FIDELITY, result)
    found: Json = run.read_json(FIDELITY)
    return found


def _budget(level: Json, *, truth: Records, proxies: Records, scores: Mapping[str, Score]) -> Json:
    """Everything about one budget: what each proxy says of its plans, and what is true of them at each length."""
    answers: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for record in proxies:
        if record["budget"] == level["budget"]:
            answers[record["proxy"]][record["plan"]] = record
    by_length: dict[int, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(truth, key=_key):
        if record["budget"] == level["budget"]:
            by_length[record["steps"]][record["plan"]].append(record)
    said = {name: _answered(records, level["plans"], scores) for name, records in answers.items()}
    return {
        **level,
        "proxies": {
            name: {
                "seconds": float(np.median([record["seconds"] for record in records.values()])),
                "failed": sum("failed" in record for record in records.values()),
                "scores": said[name],
            }
            for name, records in answers.items()
        },
        "truth": {str(steps): _length(by_length[steps], said) for steps in sorted(by_length)},
    }


def _length(found: Mapping[int, Records], said: Mapping[str, Mapping[str, Floats]]) -> Json:
    """One length of recovery: what came out, how much of it is chance, and how each proxy ranks it."""
    plans = np.array(sorted(found))
    seen = {
        (role, metric): [[sign * record[role][metric] for record in found[plan]] for plan in plans]
        for role in ("held_out", "test")
        for metric, sign in TRUTHS.items()
    }
    means = {key: np.array([np.mean(values) for values in per_plan]) for key, per_plan in seen.items()}
    rankings = {
        name: {score: _ranking(x[plans], means) for score, x in per_score.items()} for name, per_score in said.items()
    }
    top = np.flatnonzero(better_half(means["held_out", "accuracy"]))
    chances = {metric: chance(seen["held_out", metric], rng=_rng("chance")) for metric in TRUTHS}
    of_top = chance([seen["held_out", "accuracy"][place] for place in top], rng=_rng("chance"))
    return {
        "plans": plans,
        "accuracy": seen["held_out", "accuracy"],
        "test_accuracy": seen["test", "accuracy"],
        "better_half": plans[top],
        "verdict": verdict(chances["accuracy"]),
        "verdict_top": verdict(of_top),
        "chance": {metric: _with_differ(value) for metric, value in chances.items()},
        "chance_top": _with_differ(of_top),
        "test_tau": asdict(_tau(means["held_out", "accuracy"], means["test", "accuracy"])),
        "rankings": rankings,
    }


def _ranking(x: Floats, means: Mapping[tuple[str, str], Floats]) -> Json | None:
    """How x [plans] ranks the plans' recovered accuracy, and how their loss and KL; None before all have answered."""
    truth = means["held_out", "accuracy"]
    if np.isnan(x).any() or len(x) < FEWEST:
        return None
    top = better_half(truth)
    return {
        "tau": asdict(_tau(x, truth)),
        "tau_top": asdict(_tau(x[top], truth[top])),
        "pearson": asdict(estimate(pearson, x, truth, rng=_rng("bootstrap"))),
        "pearson_top": asdict(estimate(pearson, x[top], truth[top], rng=_rng("bootstrap"))),
        "spearman": spearman(x, truth),
        "tau_loss": asdict(_tau(x, means["held_out", "loss"])),
        "tau_kl": asdict(_tau(x, means["held_out", "kl"])),
        "tau_test": asdict(_tau(x, means["test", "accuracy"])),
    }


def _with_differ(found: SeedNoise) -> Json:
    return {**asdict(found), "differ": found.differ}


def _answered(records: Mapping[int, Mapping[str, Any]], plans: int, scores: Mapping[str, Score]) -> dict[str, Floats]:
    """Score → [plans], higher is better: a plan that could not be judged has the worst there is, one not asked NaN."""
    found = {}
    for name, score in scores.items():
        values = np.full(plans, np.nan)
        for plan, record in records.items():
            values[plan] = score(metrics_of(record))
        failed = [plan for plan, record in records.items() if "failed" in record]
        values[failed] = np.nan if np.isnan(values).all() else np.nanmin(values)
        found[name] = values
    return found


def _recommendation(budget: Json, length: str, *, study: Json) -> Json | None:
    """None until every plan has been recovered in full and judged by every repair."""
    if length not in budget["truth"] or len(budget["truth"][length]["plans"]) < max(FEWEST, budget["plans"]):
        return None
    truth = budget["truth"][length]
    known: dict[Choice, Floats] = {
        (repair, score): values
        for repair in study["repairs"]
        for score, values in budget["proxies"].get(repair, {"scores": {}})["scores"].items()
    }
    if {repair for repair, _ in known} != set(study["repairs"]) or any(np.isnan(x).any() for x in known.values()):
        return None
    found = recommend(
        known,
        np.array([np.mean(values) for values in truth["accuracy"]]),
        seconds={repair: budget["proxies"][repair]["seconds"] for repair in study["repairs"]},
        chance=SeedNoise(**{key: value for key, value in truth["chance"]["accuracy"].items() if key != "differ"}),
        default=(study["default"]["repair"], study["default"]["score"]),
    )
    return asdict(found)


def _additivity(plans: Sequence[Sequence[int]], *, study: Json, proxies: Records, singles: Records) -> Json | None:
    """Of the KL that the default repair leaves; None until every plan and every group alone has been judged."""
    repair, budget = study["default"]["repair"], study["levels"][0]["budget"]
    joint = {r["plan"]: r["kl"] for r in proxies if (r["budget"], r["proxy"]) == (budget, repair)}
    known = {tuple(record["kept"]): record["kl"] for record in singles}
    try:
        alone = losses_alone(known, tuple(study["units"]), [tuple(kept) for kept in plans])
        together = np.array([joint[plan] for plan in range(len(plans))], np.float64)
    except KeyError:
        return None
    sound = np.isfinite(together) & np.isfinite(alone).all(axis=1)
    if sound.sum() < FEWEST:
        return None
    found = asdict(additivity(alone[sound], together[sound]))
    return {"budget": budget, "repair": repair, "joint": together[sound], "sum": alone[sound].sum(axis=1), **found}


def _wanted(level: Json, study: Json) -> list[tuple[str, int, int, int]]:
    wanted = trials(
        level["budget"],
        plans=level["plans"],
        steps=study["lengths"],
        seeds=study["seeds"],
        repeated=level["repeated"],
    )
    return [trial.key for trial in wanted]


def _key(record: Mapping[str, Any]) -> tuple[str, int, int, int]:
    return record["budget"], record["plan"], record["steps"], record["seed"]


def _median_seconds(records: Records) -> dict[str, float]:
    """Length → the median seconds of pruning, recovering and judging one plan."""
    by_length: dict[int, list[float]] = defaultdict(list)
    for record in records:
        by_length[record["steps"]].append(record["seconds"])
    return {str(steps): float(np.median(by_length[steps])) for steps in sorted(by_length)}


def _tau(x: Floats, y: Floats) -> Any:
    return estimate(kendall, x, y, rng=_rng("bootstrap"))


def _rng(purpose: str) -> np.random.Generator:
    """The same draws everywhere, so that proxies are compared on the same resampled plans."""
    return numpy_rng(0, f"fidelity/{purpose}")
