"""The comparison page: one HTML file that opens offline, from `comparison.json` only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.report import comparison_figures as figures
from autoprune.report.comparison_wording import (
    REGIMES,
    against_all,
    agent_sentence,
    agents_of,
    cell_phrases,
    headline,
    interval,
    main_regime,
    pair_sentence,
    policy_score,
    scale_sentence,
    second_line,
)
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.template import page
from autoprune.report.wording import DASH, percent
from autoprune.runs import RunFolder

PAGE, DATA = "comparison.html", "comparison.json"
Json = Mapping[str, Any]
SCORES = {"kl": "−KL to the dense network's outputs", "loss": "−loss"}
NARROW = 34  # groups from which on a plan's cells have no numbers


def write_comparison_page(folder: RunFolder) -> Path:
    """`comparison.html` stands beside comparison.json. Returns its path."""
    folder.write_text(PAGE, render_comparison(folder.read_json(DATA)))
    return folder.path / PAGE


def render_comparison(result: Json) -> str:
    """The page as text."""
    agents = sum(not agent["baseline"] for agent in result["agents"].values())
    return page(
        "comparison_page.html.jinja",
        title=f"Comparison of {agents} agents",
        above=f"compare · {agents} agents, {result['runs']} runs, {result['evaluations']} evaluations each",
        headline=headline(result),
        lead=[second_line(result)],
        result=result,
        parts=[_part(result, regime) for regime in REGIMES if agents_of(result, regime)],
        score_names=" and ".join(sorted({SCORES.get(cell["score"], cell["score"]) for cell in result["cells"]})),
        plans=[(" at ".join(cell["cell"]), _plans(result, cell)) for cell in result["plans"]],
        times=figures.times(result),
    )


def _part(result: Json, regime: str) -> dict[str, Any]:
    """Everything about one regime."""
    pictures = [figures.profiles(result, regime), figures.front(result, regime)]
    if regime == "post_training":
        pictures = [figures.over_evaluations(result), figures.over_seconds(result), *pictures]
    pairs = result[regime]["pairs"]
    return {
        "regime": regime,
        "intervals": figures.intervals(result, regime),
        "scores": _scores(result, regime),
        "scales": [scale_sentence(cell) for cell in result["cells"]] if regime == "post_training" else [],
        "matrix": _matrix(result, regime),
        "sentences": [
            {
                "label": label,
                "text": agent_sentence(groups),
                "pairs": [
                    (pair_sentence(result, p, regime), cell_phrases(p, regime)) for p in pairs if p["a"] == label
                ],
            }
            for label, groups in against_all(result, regime)
            if groups
        ],
        "pictures": pictures,
        "hypervolumes": _hypervolumes(result, regime),
    }


def _scores(result: Json, regime: str) -> PageTable:
    """A row for every agent, the unranked ones last and without an average."""
    coloured, rows = figures.colours(result), []
    policies = regime == "post_training" and bool(result.get("policies"))
    accuracy = {(e["label"], *e["cell"]): percent(e["accuracy"]) for e in result[regime]["accuracy"]}
    for rank, agent in enumerate(result[regime]["agents"], start=1):
        label, estimates = agent["label"], {tuple(cell["cell"]): cell for cell in agent["cells"]}
        seeds = sorted({cell["seeds"] for cell in agent["cells"]})
        mean, _, ends = interval(agent["iqm"], regime).partition(" ")
        cells = [Cell(mean, small=ends, style="strong")]
        if policies:
            mean, _, ends = policy_score(result, label).partition(" [")
            cells.append(Cell(mean, small=f"[{ends}" if ends else ""))
        for cell in (tuple(cell["cell"]) for cell in result["cells"]):
            value, _, ends = interval(estimates.get(cell), regime).partition(" ")
            cells.append(Cell(value, small="\n".join(filter(None, (ends, accuracy.get((label, *cell)))))))
        cells.append(
            Cell("any" if agent["deterministic"] else "–".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))))
        )
        note = "baseline" if result["agents"][label]["baseline"] else ""
        note, rank_text = (note, str(rank)) if agent["ranked"] else ("not ranked: one seed", " ")
        rows.append(Row(label, cells, colour=coloured.get(label), note=note, rank=rank_text))
    beside = [("", "policy's own plan")] if policies else []
    columns = [
        ("", "over all"),
        *beside,
        *((cell["cell"][0], cell["cell"][1]) for cell in result["cells"]),
        ("", "seeds"),
    ]
    return PageTable(columns, rows, "scores")


def _matrix(result: Json, regime: str) -> PageTable:
    """P(row is better than column) for every two agents; blue where it is above a half, red where below."""
    names = [agent["label"] for agent in agents_of(result, regime)]
    estimates = {(pair["a"], pair["b"]): pair["improvement"] for pair in result[regime]["pairs"]}
    for (a, b), estimate in list(estimates.items()):
        estimates[b, a] = {key: 1 - estimate[of] for key, of in (("value", "value"), ("low", "high"), ("high", "low"))}

    def cell(a: str, b: str) -> Cell:
        estimate = estimates.get((a, b))
        if estimate is None:
            return Cell("")
        value = estimate["value"]
        return Cell(
            f"{100 * value:.0f}",
            hover=f"P({a} is better than {b}) = {interval(estimate)}",
            heat=round(150 * abs(value - 0.5)) + 4,
            colour="one" if value >= 0.5 else "two",
            style="" if estimate["low"] > 0.5 or estimate["high"] < 0.5 else "faint",
        )

    return PageTable([("", name) for name in names], [Row(a, [cell(a, b) for b in names]) for a in names], "grid")


def _plans(result: Json, cell: Json) -> PageTable:
    """The median plan of each agent: a row of how much of every group is kept, stronger is more."""
    ranked = [agent["label"] for agent in agents_of(result, main_regime(result))]
    names, tight = (
        sorted(cell["agents"], key=lambda n: ranked.index(n) if n in ranked else 99),
        len(cell["groups"]) > NARROW,
    )
    rows = [
        Row(
            name,
            [
                Cell(
                    "" if tight else f"{100 * density:.0f}",
                    hover=f"{name}: {group} keeps {density * units:g} of {units} units",
                    heat=round(4 + 76 * density),
                    colour="one",
                )
                for group, units, density in zip(cell["groups"], cell["units"], cell["agents"][name], strict=True)
            ],
        )
        for name in names
    ]
    return PageTable(
        [("", "" if tight else group) for group in cell["groups"]], rows, "grid tight" if tight else "grid"
    )


def _hypervolumes(result: Json, regime: str) -> PageTable | None:
    """One column per task; agents by the ranking."""
    fronts, rows = result[regime]["fronts"], []
    for label in (agent["label"] for agent in agents_of(result, regime)):
        volumes = [(front["agents"].get(label) or {}).get("hypervolume") for front in fronts]
        if any(volumes):
            rows.append(Row(label, [Cell(interval(volume, digits=3) if volume else DASH) for volume in volumes]))
    columns = [("", f"{front['task']}, {front['cost']}") for front in fronts]
    return PageTable(columns, rows) if rows else None
