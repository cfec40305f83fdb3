"""The comparison page: one HTML file that opens offline, from `comparison.json` only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoprune.report import comparison_figures as figures
from autoprune.report.comparison_curves import over_evaluations, over_seconds
from autoprune.report.comparison_grids import matrix, plans
from autoprune.report.comparison_wording import (
    REGIMES,
    against_all,
    agent_sentence,
    agents_of,
    cell_phrases,
    headline,
    interval,
    pair_sentence,
    scale_sentence,
    second_line,
)
from autoprune.report.drawing import COLOURS, Picture
from autoprune.report.template import filled
from autoprune.report.wording import DASH, percent
from autoprune.runs import RunFolder

PAGE, DATA, TEMPLATE = "comparison.html", "comparison.json", "comparison_page.html.jinja"
Json = Mapping[str, Any]
Row = dict[str, Any]
TITLES = {"post_training": "Post-training", "recovered": "Recovered"}
INTROS = {
    "post_training": "No gradient step after pruning: the regime of large models, and of whoever cannot train. "
    "Says nothing about the next part.",
    "recovered": "After the same recovery for every plan, which closes most gaps: not the question of the part above.",
}
UNITS = {
    "post_training": "On a scale where 0 is the uniform plan, filled to its budget, and 1 the best plan known.",
    "recovered": "Percentage points of test accuracy above the uniform plan that was recovered in the same run.",
}


def write_comparison_page(folder: RunFolder) -> Path:
    """Writes comparison.html beside comparison.json and returns its path."""
    folder.write_text(PAGE, render_comparison(folder.read_json(DATA)))
    return folder.path / PAGE


def render_comparison(result: Json) -> str:
    """The page as text. All that comes from the file is escaped; only our own drawings are taken as they are."""
    order = [agent["label"] for agent in agents_of(result, _main(result))]
    return filled(
        TEMPLATE,
        result=result,
        agents=sum(not agent["baseline"] for agent in result["agents"].values()),
        headline=headline(result),
        second_line=second_line(result),
        parts=[_part(result, regime) for regime in REGIMES if agents_of(result, regime)],
        score_names=" and ".join(sorted({SCORES.get(cell["score"], cell["score"]) for cell in result["cells"]})),
        plans=[(" at ".join(cell["cell"]), Markup(plans(cell, order))) for cell in result["plans"]],
        times=_drawn(figures.times(result)),
        colours=COLOURS,
    )


SCORES = {"kl": "−KL to the dense network's outputs", "loss": "−loss"}


def _main(result: Json) -> str:
    return "post_training" if agents_of(result, "post_training") else "recovered"


def _part(result: Json, regime: str) -> Row:
    """Everything about one regime."""
    drawn = [figures.profiles(result, regime), figures.front(result, regime)]
    if regime == "post_training":
        drawn = [over_evaluations(result), over_seconds(result), *drawn]
    several = len(agents_of(result, regime)) > 1
    return {
        "title": TITLES[regime],
        "intro": INTROS[regime],
        "unit": UNITS[regime],
        "intervals": _drawn(figures.intervals(result, regime)),
        "rows": _rows(result, regime),
        "scales": [scale_sentence(cell) for cell in result["cells"]] if regime == "post_training" else [],
        "matrix": Markup(matrix(result, regime)) if several else None,
        "sentences": _sentences(result, regime),
        "pictures": [_drawn(entry) for entry in drawn if entry is not None],
        "hypervolumes": _hypervolumes(result, regime),
    }


def _rows(result: Json, regime: str) -> list[Row]:
    """A row of the table for every agent, the unranked ones last and without an average."""
    coloured = figures.colours(result)
    accuracy = {(e["label"], *e["cell"]): e["accuracy"] for e in result[regime]["accuracy"]}
    rows = []
    for place, agent in enumerate(result[regime]["agents"], start=1):
        label, known = agent["label"], {tuple(cell["cell"]): cell for cell in agent["cells"]}
        seeds = sorted({cell["seeds"] for cell in agent["cells"]})
        note = "baseline" if result["agents"][label]["baseline"] else ""
        note = note if agent["ranked"] else "not ranked: one seed"
        rows.append(
            {
                "rank": place if agent["ranked"] else "",
                "label": label,
                "colour": coloured.get(label),
                "note": note,
                "overall": interval(agent["iqm"], regime),
                "seeds": str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}",
                "cells": [
                    _in_cell(cell, known.get(tuple(cell["cell"])), accuracy.get((label, *cell["cell"])), regime)
                    for cell in result["cells"]
                ],
            }
        )
    return rows


def _in_cell(cell: Json, found: Json | None, accuracy: float | None, regime: str) -> Row:
    """One seed has no interval; what was not run has nothing."""
    value, _, ends = (DASH, "", "") if found is None else interval(found, regime).partition(" ")
    said = [ends] if found is not None and found["seeds"] > 1 else []
    said += [percent(accuracy)] if accuracy is not None else []
    return {"name": " at ".join(cell["cell"]), "score": value, "rest": " · ".join(said)}


def _sentences(result: Json, regime: str) -> list[Row]:
    pairs = result[regime]["pairs"]
    return [
        {
            "label": label,
            "text": agent_sentence(groups),
            "pairs": [
                (pair_sentence(result, pair, regime), cell_phrases(pair, regime))
                for pair in pairs
                if pair["a"] == label
            ],
        }
        for label, groups in against_all(result, regime)
        if groups
    ]


def _hypervolumes(result: Json, regime: str) -> Row | None:
    """One column per task; agents by the ranking."""
    found = result[regime]["fronts"]
    if not found:
        return None
    order = [agent["label"] for agent in agents_of(result, regime)]
    rows = []
    for label in order:
        volumes = [(task["agents"].get(label) or {}).get("hypervolume") for task in found]
        if any(volumes):
            rows.append((label, [_volume(volume) for volume in volumes]))
    return {"tasks": [f"{task['task']}, {task['cost']}" for task in found], "rows": rows} if rows else None


def _volume(found: Json | None) -> str:
    return DASH if found is None else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _drawn(entry: Picture | None) -> tuple[Picture, Markup, Markup] | None:
    return None if entry is None else (entry, Markup(entry.wide), Markup(entry.narrow))
