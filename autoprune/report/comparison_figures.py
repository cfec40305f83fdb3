"""The figures of a comparison: intervals, curves, profiles, fronts, times; and who has which colour."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from autoprune.report.comparison_wording import agents_of, main_regime
from autoprune.report.drawing import (
    COLOURS,
    SERIES,
    Key,
    Picture,
    agent_style,
    log_axis,
    name_rows,
    only_horizontal_grid,
    percent_axis,
    picture,
)
from autoprune.report.wording import COSTS, number

Json = Mapping[str, Any]
MOST_CELLS = 6  # panels of one figure
LOWEST = -0.75  # of a curve's scores, where none ends below: the first plans of a search are of no interest
UNITS = {
    "post_training": "score: 0 is uniform, 1 the best plan known",
    "recovered": "points of test accuracy above uniform",
}


def colours(result: Json) -> dict[str, str]:
    """Agent → the name of its colour in every figure; the first six of the ranking have one."""
    labels = [agent["label"] for agent in agents_of(result, main_regime(result))]
    return dict(zip([name for name in labels if not result["agents"][name]["baseline"]], SERIES, strict=False))


def intervals(result: Json, regime: str) -> Picture:
    """Every agent's IQM with its interval, and behind it those of each task and budget.

    Args:
        result: The comparison, as it is written down.
        regime: "post_training" or "recovered".
    """
    agents, coloured = agents_of(result, regime), colours(result)
    several = len(result["cells"]) > 1
    baselines = {name for name, entry in result["agents"].items() if entry["baseline"]}

    def draw(axes: Axes) -> None:
        rows = name_rows(axes, [agent["label"] for agent in agents])
        axes.axvline(0, color=COLOURS["muted"], lw=1, ls=(0, (2, 3)))
        left = _room_for(axes, [agent["iqm"]["low"] for agent in agents] + [0.0], [a["iqm"]["high"] for a in agents])
        for row, agent in zip(rows, agents, strict=True):
            name, mean = agent["label"], agent["iqm"]
            colour = COLOURS[coloured.get(name, "muted")]
            axes.hlines(row, mean["low"], mean["high"], color=colour, lw=7, alpha=0.3)
            if several:
                each = [cell["value"] for cell in agent["cells"]]
                axes.scatter(each, [row] * len(each), s=11, color=COLOURS["point"], linewidths=0, zorder=3)
            hollow = name in baselines
            axes.scatter(
                mean["value"], row, s=46, marker="s" if hollow else "o", zorder=4, linewidths=1.7,
                facecolors=COLOURS["surface"] if hollow else colour, edgecolors=colour,
            )  # fmt: skip
            if mean["value"] < left:
                axes.text(left, row, f" ◂ {number(mean['value'], digits=2)}", va="center")
        axes.set_xlabel(UNITS[regime])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))

    key: list[Key] = [("one", "o", "interquartile mean, 95 % interval")]
    key += [("point", "dot", "one task and budget")] if several else []
    key += [("muted", "s-open", "the runs' own baselines")] if baselines & {a["label"] for a in agents} else []
    caption = (
        "Interquartile means over seeds, tasks and budgets, with stratified-bootstrap intervals: seeds are resampled "
        "within each task and budget."
    )
    return picture("Who is best", caption, [draw], key=key, height=66 + 25 * len(agents))


def over_evaluations(result: Json) -> Picture | None:
    """The score of the plan that each agent would have handed out, were it stopped."""
    lines = result["anytime"]["evaluations"]
    if not lines["agents"]:
        return None
    caption = (
        "Over all tasks and budgets: interquartile means of the best plans so far, judged on held-out samples. "
        "Single-group passes count as evaluations; a line begins where every seed has a plan inside the budget."
    )
    draw = partial(_curves, lines=lines, coloured=colours(result), xlabel="evaluations", band=True)
    key = _key(result, lines["agents"])
    return picture("If the search were stopped", caption, [draw], key=key, height=330)


def over_seconds(result: Json) -> Picture | None:
    """The same against seconds, task by task, as seconds are alike nowhere."""
    cells = [cell for cell in result["anytime"]["cells"] if cell["seconds"]["agents"]][:MOST_CELLS]
    if not cells:
        return None
    left_out = len(result["anytime"]["cells"]) - len(cells)
    caption = (
        "Seconds of judging plans, as long as each takes when it is new, and of everything else that the agent does."
        + (f" {left_out} more tasks and budgets are in comparison.json." if left_out else "")
    )
    coloured, key = colours(result), _key(result, [name for cell in cells for name in cell["seconds"]["agents"]])
    panels = [
        partial(_curves, lines=cell["seconds"], coloured=coloured, xlabel="seconds", heading=" at ".join(cell["cell"]))
        for cell in cells
    ]
    return picture("Against the clock", caption, panels, key=key, height=270)


def profiles(result: Json, regime: str) -> Picture | None:
    """How large a share of runs is above a score.

    Args:
        result: The comparison, as it is written down.
        regime: "post_training" or "recovered".
    """
    profile, coloured = result[regime]["profile"], colours(result)
    if not profile["agents"]:
        return None
    thresholds = np.array(profile["thresholds"])

    def draw(axes: Axes) -> None:
        only_horizontal_grid(axes)
        for name, line in _coloured_last(profile["agents"], coloured):
            style = agent_style(name, coloured)
            axes.step(thresholds, line["share"], where="post", **style)
            if name in coloured:
                ends = np.array(line["low"], np.float64), np.array(line["high"], np.float64)
                axes.fill_between(thresholds, *ends, step="post", color=style["color"], alpha=0.1, lw=0)
        percent_axis(axes.yaxis)
        axes.set(ylabel="runs above", xlabel=UNITS[regime])

    caption = "The share of an agent's runs whose score is above what stands below. A higher line is better everywhere."
    return picture("Performance profiles", caption, [draw], key=_key(result, profile["agents"]), height=310)


def front(result: Json, regime: str) -> Picture | None:
    """Test accuracy against cost where runs of several budgets are compared.

    Args:
        result: The comparison, as it is written down.
        regime: "post_training" or "recovered".
    """
    tasks = result[regime]["fronts"][:MOST_CELLS]
    if not tasks:
        return None
    coloured = colours(result)

    def draw(axes: Axes, task: Json) -> None:
        for name, line in _coloured_last(task["agents"], coloured):
            points = np.array(line["points"])
            axes.plot(*points.T, marker="o", ms=5 if name in coloured else 3, **agent_style(name, coloured))
        axes.set(title=task["task"], xlabel=f"{COSTS.get(task['cost'], task['cost'])} left", ylabel="test accuracy")
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis, digits=None)

    when = "recovered" if regime == "recovered" else "post-training"
    caption = f"Test accuracy, {when}, and what is left of the cost."
    key = _key(result, [name for task in tasks for name in task["agents"]])
    panels = [partial(draw, task=task) for task in tasks]
    return picture("Accuracy and cost", caption, panels, key=key, height=280)


def times(result: Json) -> Picture | None:
    """What a search takes: judging its plans, and everything else."""
    entries = sorted(result["seconds"], key=lambda entry: entry["judging"] + entry["agent"])
    if not entries:
        return None

    def draw(axes: Axes) -> None:
        rows = name_rows(axes, [entry["label"] for entry in entries])
        judging, agent = (np.array([entry[key] for entry in entries]) for key in ("judging", "agent"))
        axes.barh(rows, judging, color=COLOURS["point"], height=0.55)
        axes.barh(rows, agent, left=judging, color=COLOURS["one"], height=0.55)
        axes.set_xlabel("seconds of a search, median over its runs")

    key = [("point", "s", "judging plans, as when each is new"), ("one", "s", "the agent itself")]
    caption = "A plan that was judged before is read from the store; here it is charged what it took when it was new."
    return picture("What a search takes", caption, [draw], key=key, height=62 + 24 * len(entries))


def _curves(
    axes: Axes, *, lines: Json, coloured: Mapping[str, str], xlabel: str, band: bool = False, heading: str = ""
) -> None:
    grid, drawn = np.array(lines["grid"], np.float64), []
    for name, line in _coloured_last(lines["agents"], coloured):
        value, low, high = (np.array(line[key], np.float64) for key in ("iqm", "low", "high"))
        style = agent_style(name, coloured)
        axes.step(grid, value, where="post", **style)
        if band and name in coloured:
            axes.fill_between(grid, low, high, step="post", color=style["color"], alpha=0.12, lw=0)
        drawn.append(value[np.isfinite(value)])
    values = np.concatenate(drawn)
    if len(values):
        top, bottom = float(values.max()), max(float(values.min()), min(LOWEST, float(values.max()) - 1))
        margin = 0.05 * (top - bottom + 0.1)
        axes.set_ylim(bottom - margin, top + margin)
    only_horizontal_grid(axes)
    axes.set_xscale("log")
    log_axis(axes.xaxis)
    axes.set(xlabel=xlabel, ylabel="score of the best plan so far" if band else "score", title=heading)


def _coloured_last(agents: Json, coloured: Mapping[str, str]) -> list[tuple[str, Any]]:
    """So that grey lines lie below."""
    return sorted(agents.items(), key=lambda item: item[0] in coloured)


def _key(result: Json, names: Sequence[str] | Json) -> list[Key]:
    coloured, others = colours(result), len({*names} - colours(result).keys())
    key = [(colour, "dash" if SERIES.index(colour) % 2 else "line", n) for n, colour in coloured.items() if n in names]
    return key + ([("point", "line", f"{others} others")] if others else [])


def _room_for(axes: Axes, lows: Sequence[float], highs: Sequence[float]) -> float:
    """A few hopeless agents must not press all others into one line: they are cut at the left edge, returned."""
    low, high, median = min(lows), max(highs), float(np.median(lows))
    floor = max(low, median - 3 * (high - median))
    margin = 0.04 * (high - floor) or 0.1
    axes.set_xlim(floor - margin, high + margin)
    return floor - margin
