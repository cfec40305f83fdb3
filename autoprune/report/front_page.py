"""The page of a front: accuracy against measured latency, and what each kind of budget brings at equal latency."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from autoprune.report.drawing import COLOURS, SERIES, Picture, percent_axis, picture
from autoprune.report.latency_front import LATENCY, REGIMES, AtEqualLatency, Front, at_equal_latency
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.template import page
from autoprune.report.wording import COSTS, DASH, RUNTIMES, milliseconds, number, percent, times
from autoprune.runs import RunFolder
from autoprune.statistics import pareto_front

PAGE = "front.html"


def write_front_page(fronts: Sequence[Front], folder: Path) -> Path:
    """`front.html` stands in the folder. Returns its path.

    Args:
        fronts: One for each task.
        folder: Where it is written.
    """
    RunFolder(folder).write_text(PAGE, render_front(fronts))
    return folder / PAGE


def render_front(fronts: Sequence[Front]) -> str:
    """The page as text."""
    runs = sum(len(front.points) for front in fronts)
    return page(
        "front_page.html.jinja",
        title=f"A front of {runs} runs",
        above=f"front · {runs} runs, latency on {RUNTIMES[fronts[0].runtime]}",
        headline=headline(fronts),
        lead=[
            "Each run's own network is measured beside the dense one of the same run. Accuracies are on the test data; "
            "post-training and recovered are two regimes that say nothing about one another."
        ],
        runs=runs,
        surprising=sum(point.surprising for front in fronts for point in front.points),
        parts=[
            {
                "task": front.task,
                "picture": _picture(front),
                "sentences": [sentence(entry) for entry in at_equal_latency(front)],
                "table": _table(front),
                "dense": milliseconds(front.dense_ms),
            }
            for front in fronts
        ],
    )


def headline(fronts: Sequence[Front]) -> str:
    """What latency as a budget brings, where that can be said; else how far the front goes."""
    regime = "recovered" if all("recovered" in front.regimes for front in fronts) else "post_training"
    entries = [entry for front in fronts for entry in at_equal_latency(front)]
    kind = (LATENCY, "macs", regime)
    differences = [d for e in entries if (e.guided, e.other, e.regime) == kind for d in e.differences]
    if differences:
        return (
            f"At the same measured latency, searching under a budget of latency instead of MACs changes "
            f"{REGIMES[regime].lower()} accuracy by {_mean(differences)} points"
        )
    shares = [point.share for front in fronts for point in front.points]
    return f"From {percent(max(shares), digits=0)} to {percent(min(shares), digits=0)} of the dense network's latency"


def sentence(entry: AtEqualLatency) -> str:
    """One comparison at equal latency."""
    guided, other = (_named(cost) for cost in (entry.guided, entry.other))
    start = f"{entry.agent}, {REGIMES[entry.regime].lower()}: guided by {guided} instead of {other}"
    number_of_runs = len(entry.differences)
    if not number_of_runs:
        return f"{start}, no run has a latency within the range of the others."
    spread = f" ({' to '.join(_mean([end(entry.differences)]) for end in (min, max))})" if number_of_runs > 1 else ""
    runs = f"{number_of_runs} run{'s' if number_of_runs > 1 else ''}"
    verb = "is" if entry.outside == 1 else "are"
    outside = f" {entry.outside} of its runs {verb} outside the others' range." if entry.outside else ""
    return f"{start}, {_mean(entry.differences)} points{spread} in {runs}.{outside}"


def _mean(values: Sequence[float]) -> str:
    """With its sign."""
    return number(float(np.mean(values)), digits=2, plus=True)


def _named(cost: str) -> str:
    return " and ".join(COSTS.get(name, name) for name in cost.split("+"))


def _label(series: tuple[str, str]) -> str:
    return f"{series[0]}, guided by {_named(series[1])}"


def _table(front: Front) -> PageTable:
    """A row for every run."""
    rows = []
    for point in (point for points in front.series.values() for point in points):
        predicted = DASH if point.predicted_ms is None else milliseconds(point.predicted_ms)
        texts = [times(1 / point.share), times(1 / point.macs)]
        texts += [percent(point.accuracy.get(regime)) for regime in REGIMES]
        cells = [Cell(point.budget), Cell(str(point.seed)), Cell(predicted)]
        cells += [Cell(milliseconds(point.ms), style="strong"), *map(Cell, texts)]
        rows.append(Row(_label(point.series), cells))
    titles = ("budget", "seed", "predicted", "measured", "speedup", "theoretical", *map(str.lower, REGIMES.values()))
    return PageTable([("", title) for title in titles], rows)


def _picture(front: Front) -> Picture:
    coloured = dict(zip(front.series, SERIES, strict=False))

    def draw(axes: Axes, regime: str) -> None:
        for series, points in front.series.items():
            measured = [point for point in points if regime in point.accuracy]
            x, y = np.array([p.share for p in measured]), np.array([p.accuracy[regime] for p in measured])
            colour, best = COLOURS[coloured.get(series, "muted")], pareto_front(x, y)
            axes.plot(x[best], y[best], color=colour, lw=1.8, zorder=3)
            axes.scatter(x, y, s=34, color=colour, zorder=4, linewidths=0)
        axes.set(title=REGIMES[regime], xlabel="measured latency, of the dense network's", ylabel="test accuracy")
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis, digits=None)

    caption = (
        f"Every run's own network on {RUNTIMES[front.runtime]}, batch 1, over the dense network measured in the same "
        "run. Lines join what no other run of the series beats in both."
    )
    key = [(coloured.get(series, "muted"), "line", _label(series)) for series in front.series]
    panels = [partial(draw, regime=regime) for regime in front.regimes]
    return picture(f"Accuracy and latency, {front.task}", caption, panels, key=key, height=300)
