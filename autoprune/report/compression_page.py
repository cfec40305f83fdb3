"""The page of a study of sizes on the disk: accuracy over size, the layers of the chosen files, every setting."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.report.drawing import Picture, picture
from autoprune.report.on_disk import PARTS, SizedNetwork, layer_table, over_size, size_key
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.template import page
from autoprune.report.wording import DASH, GAP, count, number, percent, size

Json = Mapping[str, Any]


def render_compression(study: Json) -> str:
    """The page as text.

    Args:
        study: What experiments/deep_compression/results.json holds.
    """
    names = list(dict.fromkeys(each["network"] for each in study["settings_tried"]))
    figures: Json = study["figures"]
    origin = study["origin"]
    return page(
        "compression_page.html.jinja",
        title="Deep Compression on the disk",
        above="deep compression",
        headline="; ".join(_headline(name, figures[name]) for name in names if name in figures)
        or "An unfinished study",
        lead=[
            "Files are whole: with header, record, codebooks, indices, biases. Points are of test accuracy, file − "
            "dense network; settings were chosen on the search role."
        ],
        pictures=[_picture(name, study["settings_tried"]) for name in names],
        layers=[(name, layer_table(figures[name]["layers"])) for name in names if name in figures],
        settings=_settings(study["settings_tried"], figures),
        facts=[
            ("Command", origin["command"]),
            ("Date", origin["date"]),
            ("Commit", origin["commit"]),
            ("Training images", count(study["train_images"])),
        ],
    )


def _headline(name: str, figures: Json) -> str:
    ratio, points = figures["ratio"][0], figures["points"][0]
    return f"{name} {number(ratio, digits=1)} times smaller at {number(points, digits=2, plus=True)} points"


def _picture(name: str, settings: Sequence[Json]) -> Picture:
    series: dict[str, list[SizedNetwork]] = {part: [] for part in PARTS}
    for each in settings:
        if each["network"] != name or (each["density"] == 1 and each["bits"] is None):
            continue
        part = PARTS[0] if each["bits"] is None else PARTS[1] if each["density"] == 1 else PARTS[2]
        mean, _, high = each["points"]
        half = 0.0 if math.isnan(high) else high - mean
        series[part].append(SizedNetwork(each["ratio"][0], mean, half))
    drawn = {part: networks for part, networks in series.items() if networks}
    return picture(
        f"{name}: accuracy over size",
        "Means over seeds, with 95 % intervals (Student's t) where there is more than one. Each point of both is a "
        "density and a number of bits.",
        [over_size(drawn, ylabel="points of test accuracy")],
        height=330,
        key=size_key(drawn),
    )


def _settings(settings: Sequence[Json], figures: Json) -> PageTable:
    rows = []
    for each in settings:
        chosen = figures.get(each["network"])
        best = chosen is not None and (chosen["density"], chosen["bits"]) == (each["density"], each["bits"])
        bits = DASH if each["bits"] is None else str(each["bits"])
        cells = [percent(each["density"]), bits, str(each["seeds"]), size(each["bytes"])]
        cells += [
            f"{number(each['ratio'][0], digits=1)}×",
            *(_interval(each[key]) for key in ("points", "search_points")),
        ]
        badge = "chosen" if best else ""
        rows.append(Row(each["network"], [Cell(text) for text in cells], chosen=best, badge=badge))
    titles = ("density", "bits", "seeds", "file", "smaller", "points, test", "points, search role")
    return PageTable([("", title) for title in titles], rows)


def _interval(values: Sequence[float]) -> str:
    mean, low, high = values
    text = number(mean, digits=2, plus=True)
    return text if math.isnan(low) else f"{text}{GAP}± {number(high - mean, digits=2)}"
