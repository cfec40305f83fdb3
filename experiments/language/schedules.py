"""How many tokens a search reads until it is where EvoPress's schedule ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.comparison.run_summary import agent_name
from experiments.language.searched import ready, searched
from experiments.readme import table as markdown_table

SEEDS = 2
TASK = (
    "experiment=language_depth",
    "repair=none",
    "budget=weights:0.75",
    "evaluation.proxy_samples=64",
    "evaluation.batch_size=2",
)
# EvoPress (arXiv 2410.14649): 64 offspring a generation, of which those that are best on a thirty-second of the tokens
# (2k of 65k) go on to a quarter (16k), and the best of these to all. Here all are 8k tokens. No test of significance.
EVOPRESS = "evopress"
SCHEDULES: Mapping[str, tuple[tuple[str, ...], int]] = {  # overrides, evaluations
    EVOPRESS: (
        ("agent=evolution", "agent.offspring=64", "evaluation.race={first: 0.03125, growth: 8, errors: 1000000}"),
        8 * 64,
    ),
    "evolution": (("agent=evolution", "evaluation.race={first: 0.1}"), 100),
    "critic_guided": (("agent=critic_guided", "evaluation.race={first: 0.1}"), 100),
}


def cell(schedule: str, seed: int) -> dict[str, Any]:
    """The search's best plans: the windows that were read until then, and their KL on all held-out ones."""
    overrides, evaluations = SCHEDULES[schedule]
    race = tuple(text for text in overrides if text.startswith("evaluation"))
    problem = ready((*TASK, *race))
    found = searched(problem, [text for text in overrides if text not in race], evaluations=evaluations, seed=seed)
    judged = problem.held_out_metrics([plan for _, plan, _ in found.best])
    return {
        "schedule": schedule,
        "seed": seed,
        "evaluations": evaluations,
        "windows": found.spent,
        "best": [
            {"windows": windows, "kept": list(plan.kept), "kl": -score, "held_out_kl": metrics.kl}
            for (windows, plan, score), metrics in zip(found.best, judged, strict=True)
            if metrics is not None  # its outputs on held-out windows are finite
        ],
    }


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where each ends, and when it has a plan as good as EvoPress's best after half of its tokens, and after all."""
    rows = []
    for schedule in SCHEDULES:
        own = [cell for cell in cells if agent_name(cell["schedule"]) == schedule]
        if not own:
            continue
        shown = [", ".join(f"{cell['best'][-1][of]:.2f}" for cell in own) for of in ("kl", "held_out_kl")]
        shown += [_ratios(own, cells, part=part) for part in (0.5, 1.0)]
        windows = ", ".join(str(cell["windows"]) for cell in own)
        rows.append([schedule, str(len(own)), windows, *shown])
    ends = ("KL in the end", "held-out", "tokens ÷ EvoPress's: to its half", "to its end")
    return list(markdown_table(("schedule", "seeds", "windows", *ends), rows))


def _ratios(own: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]], *, part: float) -> str:
    """Of each seed, by held-out KL; of one that does not come so far, that it is more than all that it read."""
    shown = []
    for cell in own:
        theirs = next((c for c in cells if c["schedule"] == EVOPRESS and c["seed"] == cell["seed"]), None)
        if theirs is not None:
            goal = [best for best in theirs["best"] if best["windows"] <= part * theirs["windows"]][-1]
            reached = next((b["windows"] for b in cell["best"] if b["held_out_kl"] <= goal["held_out_kl"]), None)
            windows, sign = (cell["windows"], "> ") if reached is None else (reached, "")
            shown.append(f"{sign}{windows / goal['windows']:.2f}")
    return ", ".join(shown)
