"""The page of networks that were pruned while they trained: of one run, or of many that are compared."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from autoprune.report.drawing import COLOURS, SERIES, Picture, agent_style, log_axis, percent_axis, picture
from autoprune.report.on_disk import layer_table
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.template import page
from autoprune.report.wording import CLASSIFIER, DASH, count, number, origin, percent, size, times
from autoprune.runs import RunFolder

KIND = "pruned_training"  # what `kind` says in such a run's result.json
PAGE, COMPARED = "report.html", "trainings.html"
Json = Mapping[str, Any]
CONFIDENCE = 0.95


def write_training_page(folder: RunFolder) -> Path:
    """`report.html` stands in the run's folder. Returns its path."""
    folder.write_text(PAGE, render_trainings([folder.read_json("result.json")], run=folder.read_json("run.json")))
    return folder.path / PAGE


def write_trainings_comparison(results: Sequence[Json], folder: Path) -> Path:
    """`trainings.html` and `trainings.json`, what it was made of, stand in the folder. Returns the page's path.

    Raises:
        ValueError: The runs are of different tasks.

    Args:
        results: The result.json of each run.
        folder: Where both are written.
    """
    tasks = sorted({result["task"] for result in results})
    if len(tasks) > 1:
        raise ValueError(
            f"trainings are compared on one task, and these runs are of {tasks}; compare one after another"
        )
    run = RunFolder(folder)
    run.write_json("trainings.json", list(results))
    run.write_text(COMPARED, render_trainings(results, run=None))
    return folder / COMPARED


def render_trainings(results: Sequence[Json], *, run: Json | None) -> str:
    """The page as text.

    Args:
        results: The result.json of each run.
        run: Of the one run that the page is about, its run.json; None where runs are compared.
    """
    first = results[0]
    name = f"{len(results)} trainings of {first['task']}" if run is None else str(run.get("name") or first["task"])
    return page(
        "training_page.html.jinja",
        title=name,
        above=f"pruned while training · {name}",
        headline=headline(results),
        lead=[
            "Densities count the weights of convolutions, linear, recurrent and attention layers. Networks are judged "
            "on the test data, which no schedule has seen; training MACs are in steps of the dense network, what was "
            "rewound included.",
            _on_the_disk(first) if run is not None else "",
        ],
        over_density=_picture(results, "density", "share of the weights that stays"),
        over_macs=_picture(results, "macs", "training MACs, in steps of the dense network"),
        history=_history(first) if run is not None else None,
        layers=layer_table((first.get("on_disk") or {}).get("layers") or () if run is not None else ()),
        summary=summary_table(results),
        facts=[] if run is None else _facts(first, run),
    )


def headline(results: Sequence[Json]) -> str:
    """What came out, in one sentence."""
    series = _series(results)
    dense = [accuracy for accuracy in (_dense(result) for result in results) if accuracy is not None]
    sparse = {
        label: min(cells, key=lambda cell: cell["density"])
        for label, cells in series.items()
        if any(cell["density"] < 1 for cell in cells)
    }
    if not sparse:
        return "Nothing was pruned"
    best = max(sparse, key=lambda label: sparse[label]["mean"])
    cell = sparse[best]
    name, quality = _metric(results)
    before, after = (f"{name} ", "") if quality is number else ("", f" {name}")
    beside = f", the dense network {quality(float(np.mean(dense)))}" if dense else ""
    return f"{best} keeps {percent(cell['density'])} of the weights at {before}{quality(cell['mean'])}{after}{beside}"


def _on_the_disk(result: Json) -> str:
    """How large the network's file is, and what sharing values has cost."""
    on_disk = result.get("on_disk")
    if not on_disk:
        return ""
    _, quality = _metric([result])
    before, after = (record["test_accuracy"] for record in (result["pruned"], result["points"][-1]))
    shared = f" Before values were shared it was at {quality(before)}." if before != after else ""
    return (
        f"On the disk: {size(on_disk['bytes'])} as .apz, {times(on_disk['ratio'])} smaller than the dense network's "
        f"parameters at fp32 ({size(on_disk['dense_bytes'])}).{shared}"
    )


def _metric(results: Sequence[Json]) -> tuple[str, Callable[[float], str]]:
    """The metric's name, and how its values are written: in percent where they are accuracies."""
    judged = results[0].get("judged") or CLASSIFIER
    return str(judged["metric"] or "metric"), percent if judged["percent"] else number


def summary_table(results: Sequence[Json]) -> PageTable:
    """A row for each series and density: seeds, mean accuracy with its interval, training MACs."""
    rows, (name, quality) = [], _metric(results)
    scale, unit = (100, ", points") if quality is percent else (1, "")
    for label, cells in _series(results).items():
        for cell in cells:
            interval = DASH if math.isnan(cell["half"]) else f"± {number(scale * cell['half'], digits=2)}"
            mean = percent(cell["mean"], digits=2) if quality is percent else number(cell["mean"], digits=3)
            texts = [percent(cell["density"], digits=2), str(cell["seeds"]), mean, interval]
            rows.append(Row(label, [Cell(text) for text in [*texts, count(cell["macs"])]]))
    titles = ("density", "seeds", f"test {name}", f"95 % interval{unit}", "training MACs")
    return PageTable([("", title) for title in titles], rows)


def _series(results: Sequence[Json]) -> dict[str, list[dict[str, Any]]]:
    """Series → its cells by falling density: mean over seeds, half of the t interval (NaN of one seed), MACs."""
    grouped: dict[str, dict[float, list[Json]]] = {}
    for result in results:
        for point in result["points"]:
            at = round(float(point["density"]), 4)
            grouped.setdefault(str(point["series"]), {}).setdefault(at, []).append(point)
    return {
        label: [_cell(density, each) for density, each in sorted(cells.items(), reverse=True)]
        for label, cells in sorted(grouped.items())
    }


def _cell(density: float, points: Sequence[Json]) -> dict[str, Any]:
    values = np.array([point["test_accuracy"] for point in points], float)
    n = len(values)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    macs = float(np.mean([point["macs"] for point in points]))
    return {"density": density, "seeds": n, "mean": float(values.mean()), "half": float(half), "macs": macs}


def _picture(results: Sequence[Json], across: str, label: str) -> Picture | None:
    series = _series(results)
    colours = dict(zip(series, SERIES, strict=False))
    metric, quality = _metric(results)

    def draw(axes: Axes) -> None:
        for name, cells in series.items():
            x, y = np.array([cell[across] for cell in cells]), np.array([cell["mean"] for cell in cells])
            half = np.nan_to_num([cell["half"] for cell in cells])
            style = agent_style(name, colours)
            axes.errorbar(x, y, yerr=half, marker="o", ms=5, elinewidth=1.2, **style)
        axes.set(xscale="log", xlabel=label, ylabel=f"test {metric}")
        log_axis(axes.xaxis)
        if quality is percent:
            percent_axis(axes.yaxis, digits=None)

    if not any(cells for cells in series.values()):
        return None
    key = [(colours.get(name, "point"), "line", name) for name in series]
    caption = "Means over seeds, with their 95 % intervals (Student's t) where there is more than one."
    heading = f"{metric[0].upper()}{metric[1:]} over {'density' if across == 'density' else 'training'}"
    return picture(heading, caption, [draw], key=key, height=330)


def _history(result: Json) -> Picture | None:
    """Density and training loss at the end of every interval."""
    history = result.get("history") or []
    if len(history) < 2:
        return None
    x = [record["macs"] for record in history]

    def draw(axes: Axes, key: str, label: str) -> None:
        axes.plot(x, [record[key] for record in history], color=COLOURS["searched"], marker="o", ms=4)
        axes.set(xlabel="training MACs, in steps of the dense network", ylabel=label)

    panels = [partial(draw, key="density", label="density"), partial(draw, key="loss", label="training loss")]
    caption = "At the end of every interval between two decisions of the schedule."
    return picture("How it went", caption, panels, key=[("searched", "line", "this run")], height=260)


def _dense(result: Json) -> float | None:
    dense = result.get("dense")
    return None if dense is None else float(dense["test_accuracy"])


def _facts(result: Json, run: Json) -> list[tuple[str, str]]:
    training = result["training"]
    facts = [("Task", str(result["task"])), ("Schedule", str(result["schedule"])), ("Seed", str(result["seed"]))]
    facts.append(("Weights", f"{result['weights']:,} of {result['total']:,}, {result['granularity']}"))
    spent = f"{training['steps']:,} optimizer steps, {number(training['macs'], digits=1)} steps of the dense network"
    if uncounted := result.get("uncounted"):
        facts.append(("Not counted", ", ".join(f"{name} ({size:,})" for name, size in uncounted.items())))
    return [*facts, ("Training", spent), *origin(run, command=str(result["command"]))]
