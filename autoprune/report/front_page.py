"""The page of a front: accuracy against measured latency, and what each kind of budget brings at equal latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from autoprune.report.drawing import COLOURS, SERIES, Picture, picture
from autoprune.report.latency_front import LATENCY, REGIMES, AtEqualLatency, Front, Point, at_equal_latency
from autoprune.report.template import filled
from autoprune.report.wording import COSTS, DASH, RUNTIMES, milliseconds, percent, times
from autoprune.statistics import pareto_front

PAGE = "front.html"
TEMPLATE = "front_page.html.jinja"


def write_front_page(fronts: Sequence[Front], folder: Path) -> Path:
    """Writes front.html into the folder and returns its path."""
    path = folder / PAGE
    path.write_text(render(fronts), encoding="utf-8")
    return path


def render(fronts: Sequence[Front]) -> str:
    """The page as text; what comes from runs is escaped."""
    parts = []
    for front in fronts:
        drawn = _picture(front)
        parts.append(
            {
                "task": front.task,
                "picture": (drawn, Markup(drawn.wide), Markup(drawn.narrow)),
                "sentences": [sentence(found) for found in at_equal_latency(front)],
                "rows": [_row(point) for points in front.series.values() for point in points],
                "dense": milliseconds(front.dense_ms),
            }
        )
    runs = sum(len(front.points) for front in fronts)
    return filled(
        TEMPLATE,
        headline=headline(fronts),
        runs=runs,
        runtime=RUNTIMES[fronts[0].runtime],
        parts=parts,
        surprising=sum(point.surprising for front in fronts for point in front.points),
        regimes=list(REGIMES.values()),
        colours=COLOURS,
    )


def headline(fronts: Sequence[Front]) -> str:
    """What latency as a budget brings, where that can be said; else how far the front goes."""
    regime = "recovered" if all("recovered" in front.regimes for front in fronts) else "post_training"
    every = [found for front in fronts for found in at_equal_latency(front)]
    found = [d for e in every if (e.guided, e.other, e.regime) == (LATENCY, "macs", regime) for d in e.differences]
    if found:
        return (
            f"At the same measured latency, searching under a budget of latency instead of MACs changes "
            f"{REGIMES[regime].lower()} accuracy by {_signed(found)} points"
        )
    shares = [point.share for front in fronts for point in front.points]
    return f"From {percent(max(shares), digits=0)} to {percent(min(shares), digits=0)} of the dense network's latency"


def sentence(found: AtEqualLatency) -> str:
    """One comparison at equal latency."""
    regime = REGIMES[found.regime].lower()
    outside = f" {found.outside} of its runs {'is' if found.outside == 1 else 'are'} outside the others' range."
    said = f"{found.agent}, {regime}: guided by {_named(found.guided)} instead of {_named(found.other)}"
    if not found.differences:
        return f"{said}, no run has a latency within the range of the others."
    ends = (_signed([end(found.differences)]) for end in (min, max))
    spread = f" ({' to '.join(ends)})" if len(found.differences) > 1 else ""
    runs = f"{len(found.differences)} run{'s' if len(found.differences) > 1 else ''}"
    return f"{said}, {_signed(found.differences)} points{spread} in {runs}.{outside if found.outside else ''}"


def _signed(values: Sequence[float]) -> str:
    """Their mean, with its sign."""
    return f"{np.mean(values):+.2f}".replace("-", "−")


def _named(cost: str) -> str:
    return " and ".join(COSTS.get(name, name) for name in cost.split("+"))


def _label(series: tuple[str, str]) -> str:
    return f"{series[0]}, guided by {_named(series[1])}"


def _row(point: Point) -> dict[str, Any]:
    return {
        "label": _label(point.series),
        "budget": point.budget,
        "seed": point.seed,
        "measured": milliseconds(point.ms),
        "predicted": DASH if point.predicted_ms is None else milliseconds(point.predicted_ms),
        "speedup": times(1 / point.share),
        "theoretical": times(1 / point.macs),
        "accuracy": [percent(point.accuracy.get(regime)) for regime in REGIMES],
    }


def _picture(front: Front) -> Picture:
    coloured = dict(zip(front.series, SERIES, strict=False))

    def draw(figure: Figure, narrow: bool) -> None:
        regimes = front.regimes
        shape = (len(regimes), 1) if narrow else (1, len(regimes))
        for axes, regime in zip(figure.subplots(*shape, squeeze=False).flat, regimes, strict=True):
            for series, points in front.series.items():
                known = [point for point in points if regime in point.accuracy]
                x, y = np.array([p.share for p in known]), np.array([p.accuracy[regime] for p in known])
                colour = COLOURS[coloured.get(series, "muted")]
                best = pareto_front(x, y)
                axes.plot(x[best], y[best], color=colour, lw=1.8, zorder=3)
                axes.scatter(x, y, s=34, color=colour, zorder=4, linewidths=0)
            axes.set_title(REGIMES[regime], fontsize=12.5, color=COLOURS["ink"], loc="left")
            axes.set_xlabel("measured latency, of the dense network's")
            axes.set_ylabel("test accuracy" if axes.get_subplotspec().is_first_col() else "")
            for axis, digits in ((axes.xaxis, 0), (axes.yaxis, None)):
                axis.set_major_formatter(PercentFormatter(1, decimals=digits, symbol=" %"))
                axis.set_major_locator(MaxNLocator(nbins=5))

    caption = (
        f"Every run's own network on {RUNTIMES[front.runtime]}, batch 1, over the dense network measured in the same "
        "run. Lines join what no other run of the series beats in both."
    )
    key = [(coloured.get(series, "muted"), "line", _label(series)) for series in front.series]
    rows = len(front.regimes)
    return picture(
        f"Accuracy and latency, {front.task}", caption, key=key, draw=draw,
        height=lambda narrow: 40 + 270 * (rows if narrow else 1),
    )  # fmt: skip
