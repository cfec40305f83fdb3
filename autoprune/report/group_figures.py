"""The report's figures of the network's groups: what each plan keeps of them, and what each can lose alone."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from autoprune.report.contents import Contents, Json, column
from autoprune.report.drawing import COLOURS, MARKERS, Picture, picture, shortened

FloatArray = NDArray[np.float64]
PRUNED = ("uniform", "sensitivity", "searched")
DASHED = (0, (4, 2))


def plan(contents: Contents) -> Picture | None:
    """How much of every group each plan keeps; of an unfinished run, the best plan so far."""
    units = _units(contents)
    shown = _densities(contents)
    whose = f"{list(shown)[-1]} plan" if shown else "best plan so far"
    if not shown and contents.best is not None and units:
        kept = dict(zip(units, contents.best["kept"], strict=True))
        shown = {"searched": {group: kept[group] / units[group] for group in units}}
    if not shown:
        return None
    main = list(shown)[-1]
    names = list(shown[main])

    def draw(figure: Figure, narrow: bool) -> None:
        axes, rows = figure.subplots(), np.arange(len(names))
        axes.grid(visible=False, axis="y")
        axes.hlines(rows, 0, 1, color=COLOURS["grid"], lw=1)
        axes.hlines(rows, 0, list(shown[main].values()), color=COLOURS[main], lw=4, alpha=0.28)
        for name, density in shown.items():
            axes.scatter(
                [density[group] for group in names], rows, marker=MARKERS[name], s=58 if name == main else 34,
                facecolors=COLOURS[name if name == main else "surface"], edgecolors=COLOURS[name], linewidths=1.7,
                zorder=4 if name == main else 3,
            )  # fmt: skip
        axes.set_yticks(rows, [shortened(group, longest=16 if narrow else 34) for group in names])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        for row, group in enumerate(names):
            axes.annotate(
                f"{round(shown[main][group] * units[group])}/{units[group]}" if group in units else "", (1, row),
                xytext=(10, 0), textcoords="offset points", va="center", color=COLOURS["muted"], annotation_clip=False,
            )  # fmt: skip
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel("units kept")

    titles = {network.name: network.title for network in contents.networks} or {main: whose}
    key = [(name, MARKERS[name] + ("" if name == main else "-open"), titles[name]) for name in shown]
    caption = f"Groups of coupled layers, in the network's order; at the right, the units that the {whose} keeps."
    return picture("Plan", caption, key=key, draw=draw, height=lambda narrow: 62 + 25 * len(names))


def curves(contents: Contents) -> Picture | None:
    """How accuracy falls when one group alone loses units."""
    if not contents.curves:
        return None
    names, units, restored = list(contents.curves), _units(contents), _restored(contents)
    marks = {name: density for name, density in _densities(contents).items() if name != "sensitivity"}

    def rows(columns: int) -> int:
        return math.ceil(len(names) / columns)

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 3 if narrow else 6
        grid = figure.subplots(rows(columns), columns, sharex=True, sharey=True, squeeze=False)
        for axes, group in zip(grid.flat, names, strict=False):
            for name, density in marks.items():
                style = "-" if name == "searched" else DASHED
                axes.axvline(density[group], color=COLOURS[name], lw=1.4, ls=style)
            if group in restored:
                left = restored[group]
                axes.plot(np.linspace(0, 1, len(left)), left, color=COLOURS["muted"], lw=1.2, alpha=0.6)
            _draw_curve(axes, contents.curves[group], units=units.get(group))
            title = shortened(group, longest=14 if narrow else 19)
            axes.set_title(title, fontsize=11, color=COLOURS["ink"], pad=3, loc="left")
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
        figure.supxlabel("% of the group's units kept", fontsize=12.5, color=COLOURS["muted"])
        figure.supylabel("%" if restored else "accuracy, %", fontsize=12.5, color=COLOURS["muted"])

    key = [("ink", "line", "accuracy with only this group pruned")]
    key += [("muted", "line", "energy of its readers' outputs that is left")] if restored else []
    key += [(name, "line" if name == "searched" else "dash", f"what the {name} plan keeps") for name in marks]
    caption = "On search data, without recovery. What groups can lose alone is not what they can lose together."
    height = {narrow: 44 + 96 * rows(3 if narrow else 6) for narrow in (False, True)}
    return picture("One group at a time", caption, key=key, draw=draw, height=lambda narrow: height[narrow])


def _draw_curve(axes: Axes, entries: list[Json], *, units: int | None) -> None:
    entries = sorted(entries, key=lambda entry: float(entry["kept"]))
    kept = column(entries, "kept") / (units or entries[-1]["kept"])
    axes.plot(kept, column(entries, "accuracy"), color=COLOURS["ink"], lw=1.6, marker=".", ms=5)
    axes.set_xlim(0, 1.04)
    axes.set_xticks([0, 0.5, 1])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axes.tick_params(labelsize=11)


def _densities(contents: Contents) -> dict[str, dict[str, float]]:
    """Of each plan that the run compares: group → fraction of its units kept."""
    found = {name: contents.network(name) for name in PRUNED}
    return {name: network.density for name, network in found.items() if network is not None}


def _restored(contents: Contents) -> dict[str, FloatArray]:
    """Group → how much of its readers' outputs the best weights restore from its first units, [units + 1]."""
    groups = contents.structure.get("groups") or []
    return {g["name"]: 1 - np.array(g["reconstruction_error"]) for g in groups if "reconstruction_error" in g}


def _units(contents: Contents) -> dict[str, int]:
    return {group["name"]: int(group["units"]) for group in contents.structure.get("groups") or []}
