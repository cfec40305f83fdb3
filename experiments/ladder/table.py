"""The README's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.comparison.run_summary import RunSummary
from autoprune.comparison.score_scale import scale_of
from experiments.readme import table

DRAWS = 10_000  # of the bootstrap over seeds
DEFAULTS = ("model_based", "critic_guided")  # the default agent, and what it was before
Rows = Sequence[Sequence[Mapping[str, Any]]]  # of every job


def markdown(record: Mapping[str, Any], found: Rows) -> list[str]:
    every = [row for rows in found for row in rows]
    trials = [RunSummary.from_json(row["trial"]) for row in every]
    lines = [
        f"{record['date'][:10]}, commit {record['commit']}, {record['machine']['processor']}, "
        f"{record['machine']['cores']} cores; {trials[0].evaluations} evaluations; "
        f"{record['seconds'] / 60:.0f} minutes for what was not kept from before.",
        "",
    ]
    if trials[0].optimum is not None:
        return [*lines, *regrets(trials, [row["regret"] for row in every])]
    criteria = {trial.cell: row for trial, row in zip(trials, every, strict=True) if "criterion" in row}
    recovered = [trial for trial in trials if trial.own.recovered is not None]
    return [
        *lines,
        *accuracies(trials),
        *differences(trials),
        *(recoveries(recovered) if recovered else []),
        *as_it_comes(criteria),
    ]


def regrets(trials: Sequence[RunSummary], regret: Sequence[float]) -> list[str]:
    """Mean and worst, of every agent on every table."""
    cells, agents = _distinct(trial.cell for trial in trials), _distinct(trial.agent for trial in trials)
    of = {
        (agent, cell): [
            r for trial, r in zip(trials, regret, strict=True) if (trial.agent, trial.cell) == (agent, cell)
        ]
        for agent in agents
        for cell in cells
    }
    agents.sort(key=lambda agent: sum(float(np.mean(of[agent, cell])) for cell in cells))
    titles = ("regret: mean, worst", *(f"`{task}`, `{budget}`" for task, budget in cells), "optimum found", "seeds")
    rows = []
    for agent in agents:
        values = [of[agent, cell] for cell in cells]
        shown = [f"{abs(np.mean(each)):.3f}, {abs(max(each)):.3f}" for each in values]
        best = f"{100 * np.mean([r < 1e-9 for each in values for r in each]):.0f} %"
        rows.append([f"`{agent}`", *shown, best, str(len(values[0]))])
    return list(table(titles, rows))


def accuracies(trials: Sequence[RunSummary]) -> list[str]:
    """Post-training: the scaled score over the cells of a budget, and test accuracy in each."""
    lines = []
    for budget, here in _by_budget(trials):
        cells, scaled = _distinct(trial.cell for trial in here), _scaled(here)
        agents = _distinct(trial.agent for trial in here)
        mean = {agent: _interval({cell: scaled[cell][agent] for cell in cells}) for agent in agents}
        rows = []
        for agent in sorted(agents, key=lambda agent: -mean[agent][0]):
            of = [[100 * t.own.test["accuracy"] for t in here if (t.agent, t.cell) == (agent, cell)] for cell in cells]
            shown = [f"{np.mean(tests):.1f}" for tests in of]
            rows.append([f"`{agent}`", _written(mean[agent]), *shown, str(len(of[0]))])
        titles = ("agent", "score", *map(_short, cells), "seeds")
        lines += [f"### Post-training, `{budget}`", "", *table(titles, rows), ""]
    note = (
        "Score: of KL on held-out search samples, 0 the uniform plan, 1 the best that any search found there; the mean "
        "over tasks with its 95 % bootstrap interval over seeds, none where no seed changes it. The other columns are "
        "test accuracy, %."
    )
    return [*lines, note, ""]


def differences(trials: Sequence[RunSummary]) -> list[str]:
    """The default agent's scaled score less each other one's, and how often it is the better one."""
    lines = []
    for budget, here in _by_budget(trials):
        cells, scaled = _distinct(trial.cell for trial in here), _scaled(here)
        agents = _distinct(trial.agent for trial in here)
        default = next((agent for agent in DEFAULTS if agent in agents), None)
        if default is None:
            continue
        others = [agent for agent in agents if agent != default]
        rows = []
        for other in others:
            each = [_over({cell: scaled[cell][default]}, {cell: scaled[cell][other]}) for cell in cells]
            every = _over({c: scaled[c][default] for c in cells}, {c: scaled[c][other] for c in cells})
            better = np.mean([_how_often_better(scaled[cell][default], scaled[cell][other]) for cell in cells])
            rows.append([f"`{other}`", _written(every), f"{better:.2f}", *map(_written, each)])
        titles = ("over", "all", "P(better)", *map(_short, cells))
        lines += [f"### `{default}` over the others, score, `{budget}`", "", *table(titles, rows), ""]
    return lines


def recoveries(trials: Sequence[RunSummary]) -> list[str]:
    """Test accuracy after recovery, over the uniform plan's and Torch-Pruning's from the same seed."""
    cells, agents = _distinct(trial.cell for trial in trials), _distinct(trial.agent for trial in trials)
    found = {
        (agent, cell): [100 * _accuracy(t.own.recovered) for t in trials if (t.agent, t.cell) == (agent, cell)]
        for agent in agents
        for cell in cells
    }
    rows = []
    for below in ("uniform", "torch_pruning"):
        levels = [f"{np.mean(found[below, cell]):.1f} %" for cell in cells]
        rows.append([f"**`{below}` itself**", *levels, str(len(found[below, cells[0]]))])
        for agent in agents:
            if agent != below:
                above = [interval_of_mean(list(np.subtract(found[agent, cell], found[below, cell]))) for cell in cells]
                seeds = str(len(found[agent, cells[0]]))
                rows.append([f"`{agent}` above it", *map(_written, above), seeds])
    heading = f"### Recovered, `{cells[0][1]}`: points of test accuracy above another from the same seed"
    return [heading, "", *table(("agent", *map(_short, cells), "seeds"), rows), ""]


def as_it_comes(criteria: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    said = [
        f"`{task.removeprefix('fashion_')}`, `{budget}`: {row['criterion']}, {100 * row['as_it_comes']:.1f} %"
        for (task, budget), row in criteria.items()
    ]
    if not said:
        return []
    return [
        "Torch-Pruning's best criterion, and the test accuracy of its network before BatchNorm's statistics are "
        f"measured again: {'; '.join(said)}.",
    ]


def _scaled(trials: Sequence[RunSummary]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Cell → agent → a score per seed, on the scale that `autoprune compare` uses."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in _distinct(trial.cell for trial in trials):
        here: dict[str, list[RunSummary]] = {}
        for trial in trials:
            if trial.cell == cell:
                here.setdefault(trial.agent, []).append(trial)
        scale = scale_of(cell, here)
        found[cell] = {agent: list(scale(np.array([t.own.score for t in of]))) for agent, of in here.items()}
    return found


Interval = tuple[float, float | None, float | None]


def _interval(values: Mapping[Any, Sequence[float]]) -> Interval:
    """The mean over cells of the means over seeds."""
    return _over(values, {cell: [0.0] for cell in values})


def interval_of_mean(values: Sequence[float]) -> Interval:
    return _interval({None: values})


def _over(ours: Mapping[Any, Sequence[float]], theirs: Mapping[Any, Sequence[float]]) -> Interval:
    rng = np.random.default_rng(0)
    exact = float(np.mean([np.mean(ours[cell]) - np.mean(theirs[cell]) for cell in ours]))
    if all(len(set(each)) < 2 for side in (ours, theirs) for each in side.values()):
        return exact, None, None
    drawn = np.mean([_means(ours[cell], rng) - _means(theirs[cell], rng) for cell in ours], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return exact, float(low), float(high)


def _how_often_better(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of all pairs of seeds; a tie counts half."""
    difference = np.subtract.outer(ours, theirs)
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _means(values: Sequence[float], rng: np.random.Generator) -> Any:
    return rng.choice(np.array(values), (DRAWS, len(values))).mean(axis=1)


def _written(interval: Interval) -> str:
    value, low, high = interval
    return f"{value:+.2f}" if low is None else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _accuracy(metrics: Mapping[str, float] | None) -> float:
    assert metrics is not None
    return metrics["accuracy"]


def _by_budget(trials: Sequence[RunSummary]) -> list[tuple[str, list[RunSummary]]]:
    return [(budget, [t for t in trials if t.budget == budget]) for budget in _distinct(t.budget for t in trials)]


def _short(cell: tuple[str, str]) -> str:
    return f"`{cell[0].removeprefix('fashion_')}`"


def _distinct(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))
