"""The report's figures of the run: how the search went, what plans cost, how recovery went."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from autoprune.report.contents import Contents, Json, column
from autoprune.report.drawing import COLOURS, MARKERS, Picture, only_horizontal_grid, picture
from autoprune.report.group_figures import curves, plan
from autoprune.report.wording import share, title
from autoprune.statistics import pareto_front

BELOW = 4.0  # scores further below the median than this many times best − median are drawn at the edge


def figures(contents: Contents) -> list[Picture]:
    """In reading order; a figure that the run has nothing for is left out."""
    drawn = (search_curve(contents), plan(contents), plane(contents), curves(contents), recovery(contents))
    return [figure for figure in drawn if figure is not None]


def search_curve(contents: Contents) -> Picture | None:
    """The score of every evaluation, the best so far, and the baselines' scores."""
    search = [r for r in contents.history if r["phase"] == "search" and r.get("score") is not None]
    single = [r["evaluation"] for r in contents.history if r["phase"] == "curves"]
    if not search:
        return None
    evaluation, score, best = column(search, "evaluation"), column(search, "score"), column(search, "best")
    feasible = np.array([bool(r.get("feasible")) for r in search])
    levels = contents.baseline_scores
    low, high = _range(score, list(levels.values()))
    below = score < low

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        if single:
            axes.axvspan(min(single) - 0.5, max(single) + 0.5, color=COLOURS["grid"], alpha=0.6, lw=0)
        for name, level in levels.items():
            axes.axhline(level, color=COLOURS[name], lw=1.6, ls=(0, (5, 3)))
        style: dict[str, Any] = {"s": 13 if narrow else 18, "linewidths": 1, "edgecolors": COLOURS["point"]}
        for shown, fill in ((feasible, COLOURS["point"]), (~feasible, "none")):
            axes.scatter(evaluation[shown & ~below], score[shown & ~below], facecolors=fill, **style)
        axes.scatter(evaluation[below], np.full(below.sum(), low), marker="v", color=COLOURS["point"], clip_on=False)
        axes.step(evaluation, best, where="post", color=COLOURS["searched"], lw=2.4)
        axes.set_ylim(low, high)
        axes.set_xlim(0, evaluation.max() * 1.01)
        axes.set_xlabel("evaluations")
        axes.set_ylabel("score (higher is better)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, integer=True))

    key = [("searched", "line", "best so far"), ("point", "dot", "one evaluated plan")]
    if not feasible.all():
        key.append(("point", "ring", "over the budget"))
    if below.any():
        key.append(("point", "down", "further below"))
    key += [(name, "dash", name) for name in levels]
    caption = "Scores are measured on search data, after pruning and before any recovery."
    if single:
        caption += f" The shaded evaluations ({len(single)}) went into the single-group curves."
    return picture("Search", caption, key=key, draw=draw, height=lambda narrow: 250 if narrow else 330)


def plane(contents: Contents) -> Picture | None:
    """Every evaluated plan by its cost and its accuracy, with the Pareto front, for the budget's cost and another."""
    records = [r for r in contents.whole if r.get("accuracy") is not None and r.get("cost")]
    if not records:
        return None
    first = [bound["cost"] for bound in contents.bounds] or ["macs"]
    costs = [cost for cost in dict.fromkeys((*first, "params", "macs")) if cost in records[0]["cost"]][:2]

    def draw(figure: Figure, narrow: bool) -> None:
        rows, columns = (len(costs), 1) if narrow else (1, len(costs))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for cost, axes in zip(costs, grid.flat, strict=True):
            _draw_plane(axes, contents, records, cost=cost)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy before recovery")

    key = [("ink", "line", "Pareto front"), ("point", "dot", "evaluated plan")]
    if any(r["phase"] == "curves" for r in records):
        key.append(("point", "ring", "single-group curves"))
    if contents.budget:
        key.append(("muted", "dash", "budget"))
    key += [(network.name, MARKERS[network.name], network.title) for network in contents.networks]
    caption = "Accuracy is measured on search data, in the post-training regime: no gradient step after pruning."
    if left := len(contents.history) - len(contents.whole):
        caption += f" Not shown: {left} plans that left a race before they had seen all samples."
    height = 230 * len(costs)
    return picture("Accuracy and cost", caption, key=key, draw=draw, height=lambda narrow: height if narrow else 340)


def recovery(contents: Contents) -> Picture | None:
    """The training loss of every plan's recovery."""
    by_plan: dict[str, list[Json]] = {}
    for record in contents.recover:
        by_plan.setdefault(str(record["plan"]), []).append(record)
    if not by_plan:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        for name, records in by_plan.items():
            steps, loss = column(records, "step"), column(records, "loss")
            colour = COLOURS.get(name, COLOURS["ink"])
            axes.plot(steps, loss, color=colour, lw=0.8, alpha=0.3)
            axes.plot(steps, smooth(loss), color=colour, lw=2)
        axes.set_xlabel("training steps")
        axes.set_ylabel("loss (smoothed)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, integer=True))

    key = [(name if name in COLOURS else "ink", "line", name) for name in by_plan]
    caption = "Every plan is recovered by the same recipe, from the same seed. Equal plans share one recovery."
    return picture("Recovery", caption, key=key, draw=draw, height=lambda narrow: 220 if narrow else 280)


def _range(score: np.ndarray[Any, np.dtype[np.float64]], levels: list[float]) -> tuple[float, float]:
    """The scores worth a look: a few broken plans must not press all others into one line."""
    top, median = max([*levels, float(score.max())]), float(np.median(score))
    low = max(min([*levels, float(score.min())]), median - BELOW * (top - median))
    margin = 0.06 * (top - low) or 1.0
    return low - margin, top + margin


def _draw_plane(axes: Axes, contents: Contents, records: list[Json], *, cost: str) -> None:
    dense = (contents.structure.get("dense") or {}).get(cost)
    x = np.array([r["cost"].get(cost, math.nan) for r in records], np.float64) / (dense or 1.0)
    accuracy, single = column(records, "accuracy"), np.array([r["phase"] == "curves" for r in records])
    for bound in contents.bounds:
        if cost == bound["cost"]:
            limit = bound["limit"] / (dense or 1.0)
            axes.axvline(limit, color=COLOURS["muted"], lw=1.2, ls=(0, (2, 3)), zorder=1)
    axes.scatter(x[single], accuracy[single], s=13, facecolors="none", edgecolors=COLOURS["point"], linewidths=1)
    axes.scatter(x[~single], accuracy[~single], s=15, color=COLOURS["point"], linewidths=0, alpha=0.85)
    front = pareto_front(x, accuracy)
    axes.step(x[front], accuracy[front], where="post", color=COLOURS["ink"], lw=1.6, zorder=3)
    _mark_networks(axes, contents, cost=cost)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel(title(cost))
    if dense:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel(f"{title(cost)} left")


def _mark_networks(axes: Axes, contents: Contents, *, cost: str) -> None:
    """The networks that the tables compare, at their accuracy on the search data."""
    dense = contents.network("dense")
    for network in contents.networks:
        accuracy, x = network.proxy.get("accuracy"), share(network, dense, cost)
        if accuracy is not None and x is not None:
            axes.scatter(
                x, accuracy, marker=MARKERS[network.name], s=80 if network is dense else 52,
                color=COLOURS[network.name], edgecolors=COLOURS["surface"], linewidths=1.2, zorder=5,
            )  # fmt: skip


def smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """An exponential moving average over about a thirtieth of the curve, unbiased at its start."""
    keep = 1 - 1 / max(1.0, len(values) / 30)
    total = weight = 0.0
    averages = np.full_like(values, math.nan)
    for i, value in enumerate(values):
        if not math.isnan(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + 1 - keep
        if weight:
            averages[i] = total / weight
    return averages
