"""The report's figures, each from a run folder's contents; None where the run has nothing to show in it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from autoprune.report.contents import Contents
from autoprune.report.drawing import COLOURS, MARKERS, Picture, only_horizontal_grid, picture, shortened
from autoprune.report.pareto import pareto_front
from autoprune.report.wording import COSTS, share

FloatArray = NDArray[np.float64]
BELOW = 4.0  # scores further below the median than this many times best − median are drawn at the edge
PRUNED = ("uniform", "sensitivity", "searched")


def figures(contents: Contents) -> list[Picture]:
    """In reading order: how the search went, what it found, what it cost, what it knew, how recovery went."""
    drawn = (search_curve(contents), plan(contents), plane(contents), curves(contents), recovery(contents))
    return [figure for figure in drawn if figure is not None]


def search_curve(contents: Contents) -> Picture | None:
    """The score of every evaluation, the best so far, and the baselines' scores."""
    records = [r for r in contents.history if r["phase"] != "baseline" and r.get("evaluation") is not None]
    search = [r for r in records if r["phase"] == "search"]
    if not search:
        return None
    evaluation, score, best = _column(search, "evaluation"), _column(search, "score"), _column(search, "best")
    feasible = np.array([bool(r.get("feasible")) for r in search])
    levels = contents.baseline_scores
    top = np.nanmax(np.concatenate([score, best, list(levels.values())])) if np.isfinite(score).any() else 0.0
    middle = float(np.nanmedian(score)) if np.isfinite(score).any() else 0.0
    spread = top - min([middle, *levels.values()])
    bottom = max(float(np.nanmin(score, initial=middle)), middle - BELOW * spread)
    low, high = bottom - 0.06 * (top - bottom or 1), top + 0.06 * (top - bottom or 1)
    outside = score < bottom
    curve_range = [r["evaluation"] for r in records if r["phase"] == "curves"]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        if curve_range:
            axes.axvspan(min(curve_range) - 0.5, max(curve_range) + 0.5, color=COLOURS["grid"], alpha=0.6, lw=0)
        for name, level in levels.items():
            axes.axhline(level, color=COLOURS[name], lw=1.6, ls=(0, (5, 3)))
        inside = ~outside & np.isfinite(score)
        style: dict[str, Any] = {"s": 13 if narrow else 18, "linewidths": 1, "zorder": 2}
        axes.scatter(evaluation[inside & feasible], score[inside & feasible], color=COLOURS["point"], **style)
        axes.scatter(
            evaluation[inside & ~feasible], score[inside & ~feasible],
            facecolors="none", edgecolors=COLOURS["point"], **style,
        )  # fmt: skip
        axes.scatter(evaluation[outside], np.full(outside.sum(), low), marker="v", color=COLOURS["point"], **style)
        axes.step(evaluation, best, where="post", color=COLOURS["searched"], lw=2.4, zorder=3)
        axes.set_ylim(low, high)
        axes.set_xlim(0, evaluation.max() * 1.01)
        axes.set_xlabel("evaluations")
        axes.set_ylabel("score (higher is better)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, integer=True))

    key = [("searched", "line", "best so far"), ("point", "dot", "one evaluated plan")]
    if not feasible.all():
        key.append(("point", "ring", "over the budget"))
    if outside.any():
        key.append(("point", "down", "further below"))
    key += [(name, "dash", name) for name in levels]
    caption = "Scores are measured on search data, after pruning and before any recovery."
    if curve_range:
        caption += f" The shaded evaluations ({len(curve_range)}) went into the single-group curves."
    return picture("Search", caption, key=tuple(key), draw=draw, height=lambda narrow: 250 if narrow else 330)


def plan(contents: Contents) -> Picture | None:
    """How much of every group each plan keeps."""
    shown = {name: network.density for name in PRUNED if (network := contents.network(name)) is not None}
    groups = contents.structure.get("groups") or []
    if not shown and contents.best is not None and groups:
        units = {group["name"]: group["units"] for group in groups}
        shown = {"searched": {n: k / u for (n, u), k in zip(units.items(), contents.best["kept"], strict=True)}}
    if not shown:
        return None
    last, whose = list(shown)[-1], f"{list(shown)[-1]} plan" if contents.networks else "best plan so far"
    names = list(shown[last])
    units_of = {group["name"]: group["units"] for group in groups}
    rows = np.arange(len(names))

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.hlines(rows, 0, 1, color=COLOURS["grid"], lw=1, zorder=1)
        for name, density in shown.items():
            values = [density[group] for group in names]
            accent = name == last
            if accent:
                axes.hlines(rows, 0, values, color=COLOURS[name], lw=4, alpha=0.28, zorder=2)
            axes.scatter(
                values, rows, marker=MARKERS[name], s=58 if accent else 34, zorder=4 if accent else 3,
                facecolors=COLOURS[name] if accent else COLOURS["surface"], edgecolors=COLOURS[name], linewidths=1.7,
            )  # fmt: skip
        axes.set_yticks(rows, [shortened(group, longest=16 if narrow else 34) for group in names])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        if units_of:
            for row, group in zip(rows, names, strict=True):
                units = units_of[group]
                axes.annotate(
                    f"{round(shown[last][group] * units)}/{units}", (1, row), xytext=(10, 0),
                    textcoords="offset points", va="center", color=COLOURS["muted"], annotation_clip=False,
                )  # fmt: skip
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel("units kept")

    titles = {network.name: network.title for network in contents.networks}
    key = tuple(
        (name, MARKERS[name] if name == last else f"{MARKERS[name]}-open", titles.get(name, "best so far"))
        for name in shown
    )
    caption = "One row for each group of coupled layers, in the network's order"
    caption += f"; at the right, the units that the {whose} keeps." if units_of else "."
    return picture("Plan", caption, key=key, draw=draw, height=lambda narrow: 62 + 25 * len(names))


def plane(contents: Contents) -> Picture | None:
    """Every evaluated plan by its cost and its accuracy, with the Pareto front, for the budget's cost and another."""
    records = [r for r in contents.history if r.get("accuracy") is not None and r.get("cost")]
    if not records:
        return None
    first = contents.budget.get("cost", "macs")
    costs = [cost for cost in dict.fromkeys((first, "params", "macs")) if cost in records[0]["cost"]][:2]
    dense = contents.structure.get("dense") or {}
    accuracy = _column(records, "accuracy")
    searching = np.array([r["phase"] != "curves" for r in records])
    limit = contents.budget.get("limit")

    def draw(figure: Figure, narrow: bool) -> None:
        grid = (
            figure.subplots(len(costs), 1, squeeze=False)
            if narrow
            else figure.subplots(1, len(costs), squeeze=False, sharey=True)
        )
        for cost, axes in zip(costs, grid.flat, strict=True):
            whole = dense.get(cost) or 1.0
            x = np.array([r["cost"].get(cost, math.nan) for r in records], np.float64) / whole
            if cost == first and limit:
                axes.axvline(limit / whole, color=COLOURS["muted"], lw=1.2, ls=(0, (2, 3)), zorder=1)
            axes.scatter(
                x[~searching], accuracy[~searching], s=13, facecolors="none", edgecolors=COLOURS["point"], lw=1
            )
            axes.scatter(x[searching], accuracy[searching], s=15, color=COLOURS["point"], lw=0, alpha=0.85)
            front = pareto_front(x, accuracy)
            axes.step(x[front], accuracy[front], where="post", color=COLOURS["ink"], lw=1.6, zorder=3)
            _mark_networks(axes, contents, cost)
            axes.xaxis.set_major_formatter(
                PercentFormatter(1, decimals=0, symbol=" %") if dense.get(cost) else axes.xaxis.get_major_formatter()
            )
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            axes.set_xlabel(f"{COSTS.get(cost, cost)} left" if dense.get(cost) else COSTS.get(cost, cost))
        for axes in grid.flat if narrow else grid.flat[:1]:
            axes.set_ylabel("accuracy before recovery")

    key = [("ink", "line", "Pareto front"), ("point", "dot", "evaluated plan")]
    if not searching.all():
        key.append(("point", "ring", "single-group curves"))
    if limit:
        key.append(("muted", "dash", "budget"))
    key += [(network.name, MARKERS[network.name], network.title) for network in contents.networks]
    caption = (
        "Accuracy is measured on search data; this is the post-training regime, with no gradient step after pruning."
    )
    return picture(
        "Accuracy and cost",
        caption,
        key=tuple(key),
        draw=draw,
        height=lambda narrow: 230 * len(costs) if narrow else 340,
    )


def curves(contents: Contents) -> Picture | None:
    """How accuracy falls when one group alone loses units."""
    if not contents.curves:
        return None
    names = list(contents.curves)
    marks = {n: network.density for n in PRUNED if (network := contents.network(n)) is not None}

    def columns(narrow: bool) -> int:
        return min(3 if narrow else 6, len(names))

    def rows(narrow: bool) -> int:
        return math.ceil(len(names) / columns(narrow))

    def draw(figure: Figure, narrow: bool) -> None:
        grid = figure.subplots(rows(narrow), columns(narrow), sharex=True, sharey=True, squeeze=False)
        for axes, group in zip(grid.flat, names, strict=False):
            entries = sorted(contents.curves[group], key=lambda entry: int(entry["kept"]))
            units = max(entry["kept"] for entry in entries)
            units = next((g["units"] for g in contents.structure.get("groups") or [] if g["name"] == group), units)
            for name in ("uniform", "searched"):
                if group in marks.get(name, {}):
                    axes.axvline(
                        marks[name][group], color=COLOURS[name], lw=1.4, ls="-" if name == "searched" else (0, (4, 2))
                    )
            kept = np.array([entry["kept"] for entry in entries]) / units
            axes.plot(kept, _column(entries, "accuracy"), color=COLOURS["ink"], lw=1.6, marker=".", ms=5)
            axes.set_title(
                shortened(group, longest=14 if narrow else 19), fontsize=11, color=COLOURS["ink"], pad=3, loc="left"
            )
            axes.set_xlim(0, 1.04)
            axes.set_xticks([0, 0.5, 1])
            axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
            axes.tick_params(labelsize=11)
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
        figure.supxlabel("% of the group's units kept", fontsize=12.5, color=COLOURS["muted"])
        figure.supylabel("accuracy, %", fontsize=12.5, color=COLOURS["muted"])

    key: list[tuple[str, str, str]] = [("ink", "line", "accuracy with only this group pruned")]
    key += [
        (n, "line" if n == "searched" else "dash", f"what the {n} plan keeps")
        for n in ("uniform", "searched")
        if n in marks
    ]
    caption = "On search data, without recovery. A group that can lose much on its own may still matter once others have lost units too."
    return picture(
        "One group at a time", caption, key=tuple(key), draw=draw, height=lambda narrow: 44 + 96 * rows(narrow)
    )


def recovery(contents: Contents) -> Picture | None:
    """The training loss of every plan's recovery."""
    by_plan: dict[str, list[Mapping[str, Any]]] = {}
    for record in contents.recover:
        by_plan.setdefault(str(record["plan"]), []).append(record)
    if not by_plan:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        for name, records in by_plan.items():
            steps, loss = _column(records, "step"), _column(records, "loss")
            colour = COLOURS.get(name, COLOURS["ink"])
            axes.plot(steps, loss, color=colour, lw=0.8, alpha=0.3)
            axes.plot(steps, _smooth(loss), color=colour, lw=2)
        axes.set_xlabel("training steps")
        axes.set_ylabel("loss (smoothed)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, integer=True))

    key = tuple((name if name in COLOURS else "ink", "line", name) for name in by_plan)
    caption = "Every plan is recovered by the same recipe, from the same seed. Equal plans share one recovery."
    return picture("Recovery", caption, key=key, draw=draw, height=lambda narrow: 220 if narrow else 280)


def _mark_networks(axes: Axes, contents: Contents, cost: str) -> None:
    """The networks that the tables compare, at their accuracy on the search data."""
    results = (contents.result or {}).get("networks") or {}
    for network in contents.networks:
        proxy, x = results[network.name].get("proxy") or {}, share(network, contents.network("dense"), cost)
        if proxy.get("accuracy") is not None and x is not None:
            axes.scatter(
                [x], [proxy["accuracy"]], marker=MARKERS[network.name], s=52 if network.name in PRUNED else 80,
                color=COLOURS[network.name], edgecolors=COLOURS["surface"], linewidths=1.2, zorder=5,
            )  # fmt: skip


def _column(records: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    """The records' values, NaN where there is none."""
    return np.array([math.nan if r.get(name) is None else r[name] for r in records], np.float64)


def _smooth(values: FloatArray) -> FloatArray:
    """An exponential moving average over about a thirtieth of the curve, unbiased at its start."""
    keep = 1 - 1 / max(1.0, len(values) / 30)
    total = weight = 0.0
    smooth = np.empty_like(values)
    for i, value in enumerate(values):
        if not math.isnan(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + 1 - keep
        smooth[i] = total / weight if weight else math.nan
    return smooth
