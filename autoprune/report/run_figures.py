"""The figures of a run: how the search went, what plans keep and cost, what groups can lose, how recovery went."""

import math
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from autoprune.report.contents import Contents, Json, column
from autoprune.report.drawing import (
    COLOURS,
    DASHED,
    MARKERS,
    Picture,
    name_rows,
    only_horizontal_grid,
    percent_axis,
    picture,
    shortened,
)
from autoprune.report.on_disk import RETRAINED, SizedNetwork, over_size, size_key
from autoprune.report.wording import Quality, drawn_metric, share, title
from autoprune.statistics import Floats, pareto_front

BELOW = 4.0  # scores further below the median than this many times best − median are drawn at the edge


def run_figures(contents: Contents) -> list[Picture]:
    """In reading order; a figure that the run has nothing for is left out."""
    drawn = (
        search_curve(contents), plan(contents), plane(contents), sizes(contents), curves(contents), recovery(contents)
    )  # fmt: skip
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

    def draw(axes: Axes) -> None:
        only_horizontal_grid(axes)
        if single:
            axes.axvspan(min(single) - 0.5, max(single) + 0.5, color=COLOURS["grid"], alpha=0.6, lw=0)
        for name, level in levels.items():
            axes.axhline(level, color=COLOURS[name], lw=1.6, ls=DASHED)
        for chosen, fill in ((feasible, COLOURS["point"]), (~feasible, "none")):
            drawn = chosen & ~below
            axes.scatter(evaluation[drawn], score[drawn], s=16, facecolors=fill, lw=1, edgecolors=COLOURS["point"])
        axes.scatter(evaluation[below], np.full(below.sum(), low), marker="v", color=COLOURS["point"], clip_on=False)
        axes.step(evaluation, best, where="post", color=COLOURS["searched"], lw=2.4)
        axes.set_ylim(low, high)
        axes.set_xlim(0, evaluation.max() * 1.01)
        axes.set(xlabel="evaluations", ylabel="score (higher is better)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))

    key = [("searched", "line", "best so far"), ("point", "dot", "one evaluated plan")]
    key += [("point", "ring", "over the budget")] if not feasible.all() else []
    key += [("point", "down", "further below")] if below.any() else []
    key += [(name, "dash", name) for name in levels]
    caption = "Scores are measured on search data, after pruning and before any recovery."
    if single:
        caption += f" The shaded evaluations ({len(single)}) went into the single-group curves."
    return picture("Search", caption, [draw], key=key, height=310)


def plan(contents: Contents) -> Picture | None:
    """How much of every group each plan keeps; of an unfinished run, the best plan so far."""
    units, densities = contents.units, contents.densities
    whose = f"{list(densities)[-1]} plan" if densities else "best plan so far"
    if not densities and contents.best is not None and units:
        kept = dict(zip(units, contents.best["kept"], strict=True))
        densities = {"searched": {group: kept[group] / units[group] for group in units}}
    if not densities:
        return None
    main = list(densities)[-1]
    names = list(densities[main])

    def draw(axes: Axes) -> None:
        rows = name_rows(axes, names)
        axes.hlines(rows, 0, 1, color=COLOURS["grid"], lw=1)
        axes.hlines(rows, 0, list(densities[main].values()), color=COLOURS[main], lw=4, alpha=0.28)
        for name, density in densities.items():
            axes.scatter(
                [density[group] for group in names], rows, marker=MARKERS[name], s=58 if name == main else 34,
                facecolors=COLOURS[name if name == main else "surface"], edgecolors=COLOURS[name], linewidths=1.7,
                zorder=4 if name == main else 3,
            )  # fmt: skip
        for row, group in zip(rows, names, strict=True):
            text = f"{round(densities[main][group] * units[group])}/{units[group]}" if group in units else ""
            axes.text(1.025, row, text, va="center", color=COLOURS["muted"])
        axes.set_xlim(0, 1.02)
        percent_axis(axes.xaxis)
        axes.set_xlabel("units kept")

    titles = {network.name: network.title for network in contents.networks} or {main: whose}
    key = [(name, MARKERS[name] + ("" if name == main else "-open"), titles[name]) for name in densities]
    caption = f"Groups of coupled layers, in the network's order; at the right, the units that the {whose} keeps."
    return picture("Plan", caption, [draw], key=key, height=70 + 26 * len(names))


def plane(contents: Contents) -> Picture | None:
    """Every evaluated plan by its cost and its quality, with the Pareto front, for the budget's cost and another."""
    metric = drawn_metric(contents)
    records = [r for r in contents.whole if r.get(metric) is not None and r.get("cost")]
    if not records:
        return None
    bounded = [bound["cost"] for bound in contents.bounds] or ["macs"]
    costs = [cost for cost in dict.fromkeys((*bounded, "params", "macs")) if cost in records[0]["cost"]][:2]
    key = [("ink", "line", "Pareto front"), ("point", "dot", "evaluated plan")]
    key += [("point", "ring", "single-group curves")] if any(r["phase"] == "curves" for r in records) else []
    key += [("muted", "dash", "budget")] if contents.budget else []
    key += [(network.name, MARKERS[network.name], network.title) for network in contents.networks]
    caption = f"{metric.capitalize()} on search data, in the post-training regime: no gradient step after pruning."
    if left := len(contents.history) - len(contents.whole):
        caption += f" Not shown: {left} plans that left a race before they had seen all samples."
    panels = [partial(_draw_plane, contents=contents, records=records, cost=cost) for cost in costs]
    return picture(f"{metric.capitalize()} and cost", caption, panels, key=key, height=330)


def sizes(contents: Contents) -> Picture | None:
    """What pruning alone and shared values alone come to on the disk, of a plan that decides on both."""
    dense, quality, chosen = contents.network("dense"), Quality.of(contents), contents.chosen
    parts: Json = (contents.result or {}).get("parts_alone") or {}
    whole, reference = (dense.cost.get("bytes"), quality.value(dense.post_training)) if dense else (None, None)
    if not parts or chosen is None or not whole or reference is None:
        return None
    scale = 100 if quality.is_percent else 1
    series: dict[str, list[SizedNetwork]] = {}
    measured = [*((part, record["apz"], record) for part, record in parts.items())]
    if chosen.recovered and chosen.files.get("apz"):
        measured.append((RETRAINED, chosen.files["apz"], chosen.recovered))
    for part, size, metrics in measured:
        value = quality.value(metrics)
        if value is not None:
            series.setdefault(part, []).append(SizedNetwork(whole / size, scale * (value - reference)))
    unit = f"points of {quality.title}, − dense" if quality.is_percent else f"{quality.title}, − dense"
    caption = (
        "On the test data, of the chosen plan's densities, of its bits, and of both, without a gradient step; and of "
        "the network that is handed out."
    )
    return picture(
        "What each part takes on the disk", caption, [over_size(series, ylabel=unit)], height=300, key=size_key(series)
    )


def curves(contents: Contents) -> Picture | None:
    """How accuracy, or agreement with the dense network, falls when one group alone loses units."""
    if not contents.curves:
        return None
    metric = drawn_metric(contents)
    marks = {name: density for name, density in contents.densities.items() if name != "sensitivity"}
    restored = {  # group → how much of its readers' outputs the best weights restore from its first units
        group["name"]: 1 - np.array(group["reconstruction_error"])
        for group in contents.structure.get("groups") or []
        if "reconstruction_error" in group
    }

    def draw(axes: Axes, group: str) -> None:
        for name, density in marks.items():
            axes.axvline(density[group], color=COLOURS[name], lw=1.4, ls="-" if name == "searched" else DASHED)
        if group in restored:
            energy = restored[group]
            axes.plot(np.linspace(0, 1, len(energy)), energy, color=COLOURS["muted"], lw=1.2, alpha=0.6)
        entries = sorted(contents.curves[group], key=lambda entry: float(entry["kept"]))
        kept = column(entries, "kept") / (contents.units.get(group) or entries[-1]["kept"])
        axes.plot(kept, column(entries, metric), color=COLOURS["ink"], lw=1.6, marker=".", ms=5)
        axes.set(xlim=(0, 1.04), xticks=[0, 0.5, 1], ylim=(lowest, highest))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        axes.set_title(shortened(group, longest=20), pad=3)

    values = [entry[metric] for entries in contents.curves.values() for entry in entries if entry.get(metric)]
    lowest = min([*values, *(float(energy.min()) for energy in restored.values())], default=0.0) - 0.03
    highest = max([*values, *([1.0] if restored else [])], default=1.0) + 0.03
    key = [("ink", "line", f"{metric} with only this group pruned, %")]
    key += [("muted", "line", "energy of its readers' outputs that is left, %")] if restored else []
    key += [(name, "line" if name == "searched" else "dash", f"what the {name} plan keeps") for name in marks]
    caption = (
        "Across: % of the group's units that are kept. On search data, without recovery. What groups can lose alone is "
        "not what they can lose together."
    )
    panels = [partial(draw, group=group) for group in contents.curves]
    return picture("One group at a time", caption, panels, key=key, height=110, small=True)


def recovery(contents: Contents) -> Picture | None:
    """The training loss of every plan's recovery."""
    by_plan: dict[str, list[Json]] = {}
    for record in contents.recover:
        by_plan.setdefault(str(record["plan"]), []).append(record)
    by_plan = {name: records for name, records in by_plan.items() if len(records) > 1}  # a point is no curve
    if not by_plan:
        return None

    def draw(axes: Axes) -> None:
        only_horizontal_grid(axes)
        for name, records in by_plan.items():
            steps, loss = column(records, "step"), column(records, "loss")
            colour = COLOURS.get(name, COLOURS["ink"])
            axes.plot(steps, loss, color=colour, lw=0.8, alpha=0.3)
            axes.plot(steps, smooth(loss), color=colour, lw=2)
        axes.set(xlabel="training steps", ylabel="loss (smoothed)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))

    key = [(name if name in COLOURS else "ink", "line", name) for name in by_plan]
    caption = "Every plan is recovered by the same recipe, from the same seed. Equal plans share one recovery."
    return picture("Recovery", caption, [draw], key=key, height=280)


def smooth(values: Floats) -> Floats:
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


def _range(score: Floats, levels: list[float]) -> tuple[float, float]:
    """The scores worth a look: a few broken plans must not press all others into one line."""
    top, median = max([*levels, float(score.max())]), float(np.median(score))
    low = max(min([*levels, float(score.min())]), median - BELOW * (top - median))
    margin = 0.06 * (top - low) or 1.0
    return low - margin, top + margin


def _draw_plane(axes: Axes, *, contents: Contents, records: list[Json], cost: str) -> None:
    size = (contents.structure.get("dense") or {}).get(cost)
    x = np.array([r["cost"].get(cost, math.nan) for r in records], np.float64) / (size or 1.0)
    metric = drawn_metric(contents)
    quality, single = column(records, metric), np.array([r["phase"] == "curves" for r in records])
    for bound in contents.bounds:
        if cost == bound["cost"]:
            axes.axvline(bound["limit"] / (size or 1.0), color=COLOURS["muted"], lw=1.2, ls=DASHED, zorder=1)
    axes.scatter(x[single], quality[single], s=13, facecolors="none", edgecolors=COLOURS["point"], linewidths=1)
    axes.scatter(x[~single], quality[~single], s=15, color=COLOURS["point"], linewidths=0, alpha=0.85)
    front = pareto_front(x, quality)
    axes.step(x[front], quality[front], where="post", color=COLOURS["ink"], lw=1.6, zorder=3)
    dense = contents.network("dense")
    for network in contents.networks:
        style: dict[str, Any] = {"marker": MARKERS[network.name], "s": 80 if network is dense else 52, "zorder": 5}
        left, height = share(network, dense, cost), network.proxy.get(metric)
        if left is not None and height is not None:
            axes.scatter(
                left, height, color=COLOURS[network.name], edgecolors=COLOURS["surface"], linewidths=1.2, **style
            )
    percent_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set(xlabel=title(cost), ylabel=f"{metric} before recovery")
    if size:
        percent_axis(axes.xaxis)
        axes.set_xlabel(f"{title(cost)} left")
