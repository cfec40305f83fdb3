"""How good each agent's plan was on the way: curves over evaluations and over seconds."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from autoprune.report.comparison_figures import MOST_CELLS, colours, columns_of, key_of, style_of
from autoprune.report.drawing import COLOURS, Picture, only_horizontal_grid, picture

Json = Mapping[str, Any]
LOWEST = -0.75  # of the drawn scores, where none ends below: the first plans of a search are of no interest


def over_evaluations(result: Json) -> Picture | None:
    """The score of the plan that each agent would have handed out, were it stopped."""
    found = result["anytime"]["evaluations"]
    if not found["agents"]:
        return None
    key = key_of(result, found["agents"])

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        only_horizontal_grid(axes)
        _curves(axes, result, found, band=True)
        _logarithmic(axes, "evaluations")
        axes.set_ylabel("score of the best plan so far")

    caption = (
        "Over all tasks and budgets: interquartile means of the best plans so far, judged on held-out samples. "
        "Single-group passes count as evaluations; a line begins where every seed has a plan inside the budget."
    )
    return picture(
        "If the search were stopped", caption, key=key, draw=draw, height=lambda narrow: 260 if narrow else 350
    )


def over_seconds(result: Json) -> Picture | None:
    """The same against seconds, task by task, as seconds are alike nowhere."""
    cells = [cell for cell in result["anytime"]["cells"] if cell["seconds"]["agents"]][:MOST_CELLS]
    if not cells:
        return None
    key = key_of(result, {name: None for cell in cells for name in cell["seconds"]["agents"]})
    left_out = len(result["anytime"]["cells"]) - len(cells)

    def rows(narrow: bool) -> int:
        return math.ceil(len(cells) / columns_of(cells, narrow))

    def draw(figure: Figure, narrow: bool) -> None:
        grid = figure.subplots(rows(narrow), columns_of(cells, narrow), squeeze=False)
        for axes, cell in zip(grid.flat, cells, strict=False):
            only_horizontal_grid(axes)
            _curves(axes, result, cell["seconds"], band=False)
            _logarithmic(axes, "seconds")
            axes.set_title(" at ".join(cell["cell"]), fontsize=12.5, color=COLOURS["ink"], loc="left")
        for axes in grid.flat[len(cells) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("score")

    caption = (
        "Seconds of judging plans, as long as each takes when it is new, and of everything else that the agent does."
        + (f" {left_out} more tasks and budgets are in comparison.json." if left_out else "")
    )
    return picture("Against the clock", caption, key=key, draw=draw, height=lambda narrow: 40 + 250 * rows(narrow))


def _curves(axes: Axes, result: Json, found: Json, *, band: bool) -> None:
    coloured, grid, bottom = colours(result), np.array(found["grid"], np.float64), []
    for name, line in sorted(found["agents"].items(), key=lambda item: item[0] in coloured):
        value, low, high = (np.array(line[key], np.float64) for key in ("iqm", "low", "high"))
        style = style_of(name, coloured)
        axes.step(grid, value, where="post", **style)
        if band and name in coloured:
            axes.fill_between(grid, low, high, step="post", color=style["color"], alpha=0.12, lw=0)
        bottom.append(value[np.isfinite(value)])
    values = np.concatenate(bottom)
    if len(values):
        top, bottom_of = float(values.max()), max(float(values.min()), min(LOWEST, float(values.max()) - 1))
        margin = 0.05 * (top - bottom_of + 0.1)
        axes.set_ylim(bottom_of - margin, top + margin)


def _logarithmic(axes: Axes, title: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=9))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(title)
