"""The figures of a comparison, but for its curves: intervals, profiles, fronts, times; and who has which colour."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from autoprune.report.comparison_wording import agents_of
from autoprune.report.drawing import COLOURS, SERIES, Picture, only_horizontal_grid, picture, shortened
from autoprune.report.wording import COSTS

Json = Mapping[str, Any]
DASHED = (0, (5, 2.5))
MOST_CELLS = 6  # small panels of one figure
UNITS = {
    "post_training": "score: 0 is uniform, 1 the best plan known",
    "recovered": "points of test accuracy above uniform",
}


def colours(result: Json) -> dict[str, str]:
    """Agent → the name of its colour in every figure; the first six of the ranking have one."""
    regime = "post_training" if agents_of(result, "post_training") else "recovered"
    ours = [a["label"] for a in agents_of(result, regime) if not result["agents"][a["label"]]["baseline"]]
    return dict(zip(ours, SERIES, strict=False))


def intervals(result: Json, regime: str) -> Picture:
    """Every agent's IQM with its interval, and behind it those of each task and budget."""
    agents, coloured = agents_of(result, regime), colours(result)
    several = len(result["cells"]) > 1

    def draw(figure: Figure, narrow: bool) -> None:
        axes, rows = figure.subplots(), np.arange(len(agents))
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=COLOURS["muted"], lw=1, ls=(0, (2, 3)))
        for row, agent in zip(rows, agents, strict=True):
            name, found = agent["label"], agent["iqm"]
            colour = COLOURS[coloured.get(name, "muted")]
            axes.hlines(row, found["low"], found["high"], color=colour, lw=7, alpha=0.3)
            if several:
                each = [cell["value"] for cell in agent["cells"]]
                axes.scatter(each, [row] * len(each), s=11, color=COLOURS["point"], linewidths=0, zorder=3)
            hollow = result["agents"][name]["baseline"]
            axes.scatter(
                found["value"], row, s=46, marker="s" if hollow else "o", zorder=4, linewidths=1.7,
                facecolors=COLOURS["surface"] if hollow else colour, edgecolors=colour,
            )  # fmt: skip
        _names(axes, [agent["label"] for agent in agents], longest=18 if narrow else 40)
        axes.set_xlabel(UNITS[regime] if not narrow else UNITS[regime].partition(":")[0])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9))
        _room_for(axes, [agent["iqm"]["low"] for agent in agents] + [0.0], [agent["iqm"]["high"] for agent in agents])
        for place, value in enumerate(agent["iqm"]["value"] for agent in agents):
            if value < axes.get_xlim()[0]:
                cut = f"◂ {value:.2f}".replace("-", "−")
                axes.text(0.01, place, cut, transform=axes.get_yaxis_transform(), va="center", fontsize=9)

    key = [("one", "o", "interquartile mean, 95 % interval")]
    key += [("point", "dot", "one task and budget")] if several else []
    if any(result["agents"][agent["label"]]["baseline"] for agent in agents):
        key.append(("muted", "s-open", "the runs' own baselines"))
    caption = (
        "Interquartile means over seeds, tasks and budgets, with stratified-bootstrap intervals: seeds are resampled "
        "within each task and budget."
    )
    return picture("Who is best", caption, key=key, draw=draw, height=lambda narrow: 64 + 23 * len(agents))


def profiles(result: Json, regime: str) -> Picture | None:
    """How large a share of runs is above a score."""
    found, coloured = result[regime]["profile"], colours(result)
    if not found["agents"]:
        return None
    thresholds = np.array(found["thresholds"])

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        for name, line in sorted(found["agents"].items(), key=lambda item: item[0] in coloured):
            style = style_of(name, coloured)
            axes.step(thresholds, line["share"], where="post", **style)
            if name in coloured:
                ends = np.array(line["low"], np.float64), np.array(line["high"], np.float64)
                axes.fill_between(thresholds, *ends, step="post", color=style["color"], alpha=0.1, lw=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylabel("runs above")
        axes.set_xlabel(UNITS[regime].partition(":")[0])

    caption = "The share of an agent's runs whose score is above what stands below. A higher line is better everywhere."
    height = {True: 260.0, False: 320.0}
    return picture(
        "Performance profiles",
        caption,
        key=key_of(result, found["agents"]),
        draw=draw,
        height=lambda narrow: height[narrow],
    )


def front(result: Json, regime: str) -> Picture | None:
    """Test accuracy against cost where runs of several budgets are compared."""
    found = result[regime]["fronts"][:MOST_CELLS]
    if not found:
        return None
    coloured = colours(result)

    def draw(figure: Figure, narrow: bool) -> None:
        columns = columns_of(found, narrow)
        grid = figure.subplots(math.ceil(len(found) / columns), columns, squeeze=False)
        for axes, task in zip(grid.flat, found, strict=False):
            for name, line in sorted(task["agents"].items(), key=lambda item: item[0] in coloured):
                points, style = np.array(line["points"]), style_of(name, coloured)
                axes.plot(points[:, 0], points[:, 1], marker="o", ms=5 if name in coloured else 3, **style)
            axes.set_title(task["task"], fontsize=12.5, color=COLOURS["ink"], loc="left")
            axes.set_xlabel(f"{COSTS.get(task['cost'], task['cost'])} left")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
                axis.set_major_locator(MaxNLocator(nbins=5))
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()

    caption = (
        f"Test accuracy, {'recovered' if regime == 'recovered' else 'post-training'}, and what is left of the cost."
    )
    rows = {narrow: math.ceil(len(found) / columns_of(found, narrow)) for narrow in (True, False)}
    key = key_of(result, {name: None for task in found for name in task["agents"]})
    return picture("Accuracy and cost", caption, key=key, draw=draw, height=lambda narrow: 40 + 260 * rows[narrow])


def times(result: Json) -> Picture | None:
    """What a search takes: judging its plans, and everything else."""
    found = sorted(result["seconds"], key=lambda entry: entry["judging"] + entry["agent"])
    if not found:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes, rows = figure.subplots(), np.arange(len(found))
        axes.grid(visible=False, axis="y")
        judging, agent = (np.array([entry[key] for entry in found]) for key in ("judging", "agent"))
        axes.barh(rows, judging, color=COLOURS["point"], height=0.55)
        axes.barh(rows, agent, left=judging, color=COLOURS["one"], height=0.55)
        _names(axes, [entry["label"] for entry in found], longest=18 if narrow else 40)
        axes.set_xlabel("seconds of a search, median over its runs")

    key = [("point", "s", "judging plans, as when each is new"), ("one", "s", "the agent itself")]
    caption = "A plan that was judged before is read from the store; here it is charged what it took when it was new."
    return picture("What a search takes", caption, key=key, draw=draw, height=lambda narrow: 58 + 22 * len(found))


def style_of(name: str, coloured: Mapping[str, str]) -> dict[str, Any]:
    if name not in coloured:
        return {"color": COLOURS["point"], "lw": 0.9, "alpha": 0.75, "zorder": 2}
    dashed = SERIES.index(coloured[name]) % 2 == 1
    return {"color": COLOURS[coloured[name]], "lw": 2.2, "ls": DASHED if dashed else "-", "zorder": 3}


def key_of(result: Json, names: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    coloured = colours(result)
    key = [(colour, "dash" if SERIES.index(colour) % 2 else "line", n) for n, colour in coloured.items() if n in names]
    others = sum(name not in coloured for name in names)
    return key + ([("point", "line", f"{others} others")] if others else [])


def _names(axes: Axes, names: Sequence[str], *, longest: int) -> None:
    axes.set_yticks(np.arange(len(names)), [shortened(name, longest=longest) for name in names])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _room_for(axes: Axes, lows: Sequence[float], highs: Sequence[float]) -> None:
    """A few hopeless agents must not press all others into one line: they are cut at the edge, and say so."""
    low, high = min(lows), max(highs)
    floor = max(low, float(np.median(lows)) - 3 * (high - float(np.median(lows))))
    margin = 0.04 * (high - floor) or 0.1
    axes.set_xlim(floor - margin, high + margin)


def columns_of(panels: Sequence[Any], narrow: bool) -> int:
    return 1 if narrow else min(2, len(panels))
