"""What the lines of a fidelity study add up to: `fidelity.json`, made from the other files and the scores alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.evaluation.judge import Score
from autoprune.fidelity.proxies import PROXIES, SINGLES, losses_alone, metrics_of
from autoprune.fidelity.rank_agreement import SeedNoise, additivity, better_half, noise_verdict, seed_noise
from autoprune.fidelity.recommendation import BAR, Choice, recommend
from autoprune.fidelity.truth import SECONDS, TRUTH, RecoveryTrial, trials
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng
from autoprune.statistics import FEWEST_PLANS, Correlation, Floats, correlation_estimate, kendall, pearson, spearman

PLANS, STUDY, FIDELITY = "plans.json", "study.json", "fidelity.json"
TRUTHS = {"accuracy": 1, "loss": -1, "kl": -1}  # what recovery is judged by; −1: lower is better
Json = dict[str, Any]
Records = Sequence[Mapping[str, Any]]


def summarise(run: RunFolder, *, scores: Mapping[str, Score]) -> Json:
    """`fidelity.json` is written from what stands in the folder, all of it or the part that was measured so far.

    Args:
        run: The study's folder.
        scores: Name → the score that plans are ranked by.

    Returns:
        What the file holds.
    """
    study, plans = run.read_json(STUDY), run.read_json(PLANS)
    wanted = {trial for level in study["levels"] for trial in _wanted(level, study)}
    truth = [record for record in run.read_lines(TRUTH) if RecoveryTrial.of(record) in wanted]
    proxies = run.read_lines(PROXIES)
    budgets = {
        level["budget"]: _budget(level, truth=truth, proxies=proxies, scores=scores) for level in study["levels"]
    }
    main, length = study["levels"][0]["budget"], str(max(study["lengths"]))
    result = {
        **study,
        "run": run.read_json("run.json") if run.has("run.json") else {},
        "trials": {"done": len({RecoveryTrial.of(record) for record in truth}), "of": len(wanted)},
        "main": {"budget": main, "length": int(length)},
        "scores": list(scores),
        "bar": BAR,
        "seconds": _median_seconds(run.read_lines(SECONDS)),
        "budgets": budgets,
        "additivity": _additivity(plans.get(main, []), study=study, proxies=proxies, singles=run.read_lines(SINGLES)),
        "recommendation": _recommendation(budgets[main], length, study=study),
    }
    run.write_json(FIDELITY, result)
    written: Json = run.read_json(FIDELITY)
    return written


def _budget(level: Json, *, truth: Records, proxies: Records, scores: Mapping[str, Score]) -> Json:
    """Everything about one budget: what each proxy says of its plans, and what is true of them at each length."""
    answers: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for record in proxies:
        if record["budget"] == level["budget"]:
            answers[record["proxy"]][record["plan"]] = record
    by_length: dict[int, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(truth, key=RecoveryTrial.of):
        if record["budget"] == level["budget"]:
            by_length[record["steps"]][record["plan"]].append(record)
    values = {name: _scores(records, level["plans"], scores) for name, records in answers.items()}
    return {
        **level,
        "proxies": {
            name: {
                "seconds": float(np.median([record["seconds"] for record in records.values()])),
                "failed": sum("failed" in record for record in records.values()),
                "scores": values[name],
            }
            for name, records in answers.items()
        },
        "truth": {str(steps): _length(by_length[steps], values) for steps in sorted(by_length)},
    }


def _length(records: Mapping[int, Records], proxies: Mapping[str, Mapping[str, Floats]]) -> Json:
    """One length of recovery: what came out, how much of it is seeds' noise, and how each proxy ranks it."""
    plans = np.array(sorted(records))
    values = {
        (role, metric): [[sign * record[role][metric] for record in records[plan]] for plan in plans]
        for role in ("held_out", "test")
        for metric, sign in TRUTHS.items()
    }
    means = {key: np.array([np.mean(seeds) for seeds in per_plan]) for key, per_plan in values.items()}
    accuracy = values["held_out", "accuracy"]
    top = np.flatnonzero(better_half(means["held_out", "accuracy"]))
    noise = {metric: seed_noise(values["held_out", metric], rng=_rng("chance")) for metric in TRUTHS}
    noise_top = seed_noise([accuracy[index] for index in top], rng=_rng("chance"))
    return {
        "plans": plans,
        "accuracy": accuracy,
        "test_accuracy": values["test", "accuracy"],
        "better_half": plans[top],
        "verdict": noise_verdict(noise["accuracy"]),
        "verdict_top": noise_verdict(noise_top),
        "chance": {metric: _with_differ(value) for metric, value in noise.items()},
        "chance_top": _with_differ(noise_top),
        "test_tau": _estimate(kendall, means["held_out", "accuracy"], means["test", "accuracy"]),
        "rankings": {
            name: {score: _ranking(x[plans], means) for score, x in scores.items()} for name, scores in proxies.items()
        },
    }


def _ranking(x: Floats, means: Mapping[tuple[str, str], Floats]) -> Json | None:
    """How x [plans] ranks the plans' recovered accuracy, and how their loss and KL; None before all have answered."""
    truth = means["held_out", "accuracy"]
    if np.isnan(x).any() or len(x) < FEWEST_PLANS:
        return None
    top = better_half(truth)
    return {
        "tau": _estimate(kendall, x, truth),
        "tau_top": _estimate(kendall, x[top], truth[top]),
        "pearson": _estimate(pearson, x, truth),
        "pearson_top": _estimate(pearson, x[top], truth[top]),
        "spearman": spearman(x, truth),
        "tau_loss": _estimate(kendall, x, means["held_out", "loss"]),
        "tau_kl": _estimate(kendall, x, means["held_out", "kl"]),
        "tau_test": _estimate(kendall, x, means["test", "accuracy"]),
    }


def _with_differ(noise: SeedNoise) -> Json:
    return {**asdict(noise), "differ": noise.differ}


def _scores(records: Mapping[int, Mapping[str, Any]], plans: int, scores: Mapping[str, Score]) -> dict[str, Floats]:
    """Score → [plans], higher is better: a plan that could not be judged has the worst there is, one not asked NaN."""
    by_score = {name: np.full(plans, np.nan) for name in scores}
    failed = [plan for plan, record in records.items() if "failed" in record]
    for name, values in by_score.items():
        for plan, record in records.items():
            values[plan] = scores[name](metrics_of(record))
        values[failed] = np.nan if np.isnan(values).all() else np.nanmin(values)
    return by_score


def _recommendation(budget: Json, length: str, *, study: Json) -> Json | None:
    """None until every plan has been recovered in full and judged by every repair."""
    truth = budget["truth"].get(length)
    if truth is None or len(truth["plans"]) < max(FEWEST_PLANS, budget["plans"]):
        return None
    if not budget["proxies"].keys() >= set(study["repairs"]):
        return None
    proxies: dict[Choice, Floats] = {
        (repair, score): values
        for repair in study["repairs"]
        for score, values in budget["proxies"][repair]["scores"].items()
    }
    if any(np.isnan(x).any() for x in proxies.values()):
        return None
    noise = {key: value for key, value in truth["chance"]["accuracy"].items() if key != "differ"}
    recommendation = recommend(
        proxies,
        np.array([np.mean(values) for values in truth["accuracy"]]),
        seconds={repair: budget["proxies"][repair]["seconds"] for repair in study["repairs"]},
        noise=SeedNoise(**noise),
        default=(study["default"]["repair"], study["default"]["score"]),
    )
    return asdict(recommendation)


def _additivity(plans: Sequence[Sequence[int]], *, study: Json, proxies: Records, singles: Records) -> Json | None:
    """Of the KL that the default repair leaves; None until every plan and every group alone has been judged."""
    repair, budget = study["default"]["repair"], study["levels"][0]["budget"]
    kl = {r["plan"]: r["kl"] for r in proxies if (r["budget"], r["proxy"]) == (budget, repair)}
    single = {tuple(record["kept"]): record["kl"] for record in singles}
    try:
        alone = losses_alone(single, tuple(study["units"]), [tuple(kept) for kept in plans])
        joint = np.array([kl[plan] for plan in range(len(plans))], np.float64)
    except KeyError:
        return None
    finite = np.isfinite(joint) & np.isfinite(alone).all(axis=1)
    alone, joint = alone[finite], joint[finite]
    if len(joint) < FEWEST_PLANS:
        return None
    return {
        "budget": budget,
        "repair": repair,
        "joint": joint,
        "sum": alone.sum(axis=1),
        **asdict(additivity(alone, joint)),
    }


def _wanted(level: Json, study: Json) -> list[RecoveryTrial]:
    sizes = {"plans": level["plans"], "repeated": level["repeated"], "seeds": study["seeds"]}
    return list(trials(level["budget"], steps=study["lengths"], **sizes))


def _median_seconds(records: Records) -> dict[str, float]:
    """Length → the median seconds of pruning, recovering and judging one plan."""
    lengths = sorted({record["steps"] for record in records})
    return {str(n): float(np.median([r["seconds"] for r in records if r["steps"] == n])) for n in lengths}


def _estimate(correlation: Correlation, x: Floats, y: Floats) -> Json:
    return asdict(correlation_estimate(correlation, x, y, rng=_rng("bootstrap")))


def _rng(purpose: str) -> np.random.Generator:
    """The same draws everywhere, so that proxies are compared on the same resampled plans."""
    return numpy_rng(0, f"fidelity/{purpose}")
