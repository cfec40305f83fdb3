"""The fidelity report: one HTML file that opens offline, from `fidelity.json` only."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoprune.report import fidelity_figures as figures
from autoprune.report.drawing import COLOURS
from autoprune.report.fidelity_wording import brief, headline, in_points, main_truth, reason, short_verdict, two_digits
from autoprune.report.template import filled
from autoprune.report.wording import DASH, percent
from autoprune.runs import RunFolder

PAGE, TEMPLATE = "fidelity.html", "fidelity_page.html.jinja"
Json = Mapping[str, Any]
Row = dict[str, Any]
COLUMNS = {
    "tau": "τ",
    "tau_top": "τ, better half",
    "pearson": "Pearson",
    "pearson_top": "Pearson, better half",
    "spearman": "Spearman",
    "tau_loss": "τ with loss",
    "tau_kl": "τ with KL",
    "tau_test": "τ with test accuracy",
}


def write_fidelity_page(folder: RunFolder) -> Path:
    """Writes fidelity.html into the study's folder and returns its path."""
    folder.write_text(PAGE, render_fidelity(folder.read_json("fidelity.json")))
    return folder.path / PAGE


def render_fidelity(result: Json) -> str:
    """The page as text. All that comes from the file is escaped; only our own drawings are taken as they are."""
    budget, steps = result["main"]["budget"], str(result["main"]["length"])
    pictures = (
        figures.agreement(result, _shown(result), budget=budget, steps=steps),
        figures.differences(result),
        figures.alone_and_together(result["additivity"]),
    )
    agreement, differences, additivity = (
        picture and (picture, Markup(picture.wide), Markup(picture.narrow)) for picture in pictures
    )
    return filled(
        TEMPLATE,
        result=result,
        name=result["run"].get("name") or result["task"],
        headline=headline(result),
        reason=reason(result),
        agreement=agreement,
        differences=differences,
        additivity=additivity,
        heat=_heat(result),
        heat_facts=_heat_facts(result),
        levels=_levels(result),
        everything=_everything(result),
        columns=COLUMNS,
        facts=_facts(result),
        colours=COLOURS,
    )


def _shown(result: Json) -> list[tuple[str, str]]:
    """The proxies to draw: the recommended one, and the default beside it where that is another."""
    choices = [(found["repair"], found["score"]) for found in (result["recommendation"], result["default"]) if found]
    return list(dict.fromkeys(choices))


def _heat(result: Json) -> list[Row]:
    """One row per repair: τ of each score over all plans and over the better half, and what an evaluation costs."""
    main, level = main_truth(result), result["budgets"][result["main"]["budget"]]
    chosen = result["recommendation"] or {}
    rows = []
    for name, proxy in level["proxies"].items():
        ranked = (main or {"rankings": {}})["rankings"].get(name, {})
        cells = [
            {
                "score": score,
                "half": half,
                "first": score == result["scores"][0],
                "chosen": (name, score) == (chosen.get("repair"), chosen.get("score")) and half == "tau",
                **_cell((ranked.get(score) or {}).get(half), bar=result["bar"]),
            }
            for half in ("tau", "tau_top")
            for score in result["scores"]
        ]
        rows.append({"name": name, "cells": cells, "seconds": brief(proxy["seconds"]), "failed": proxy["failed"]})
    return rows


def _cell(estimate: Json | None, *, bar: float) -> Row:
    """τ in words and as heat: 0 % at no correlation, 60 % at a perfect one."""
    value = estimate["value"] if estimate else None
    if estimate is None or value is None:
        return {"text": DASH, "interval": "", "heat": 0, "reaches": False}
    interval = "" if estimate["low"] is None else f"{two_digits(estimate['low'])} to {two_digits(estimate['high'])}"
    return {
        "text": two_digits(value),
        "interval": interval,
        "heat": round(60 * max(0.0, value)),
        "reaches": value >= bar,
    }


def _heat_facts(result: Json) -> str:
    """What τ could be at most, and what the truth costs."""
    main, seconds = main_truth(result), result["seconds"].get(str(result["main"]["length"]))
    said = []
    if main and main["chance"]["accuracy"]["tau"] is not None:
        highest, of_top = (two_digits(found["tau"]) for found in (main["chance"]["accuracy"], main["chance_top"]))
        said.append(
            f"A perfect proxy would have τ = {highest} over all plans and {of_top} over the better half, as truths are "
            "themselves noisy (simulated: normal noise on the plans' accuracies, these drawn together by their noise)."
        )
    if seconds is not None:
        said.append(f"The truth itself costs {brief(seconds)} a plan.")
    return " ".join(said)


def _levels(result: Json) -> list[Row]:
    rows = []
    for budget, level in result["budgets"].items():
        for steps, found in level["truth"].items():
            chance, top = found["chance"]["accuracy"], found["chance_top"]
            accuracies = [sum(values) / len(values) for values in found["accuracy"]]
            rows.append(
                {
                    "name": f"{budget}, {steps} steps",
                    "main": budget == result["main"]["budget"] and steps == str(result["main"]["length"]),
                    "plans": len(accuracies),
                    "mean": percent(sum(accuracies) / len(accuracies)),
                    "spread": in_points(chance["spread"]),
                    "noise": in_points(chance["noise"]),
                    "reliability": two_digits(chance["reliability"]),
                    "ceiling": two_digits(chance["tau"]),
                    "test": two_digits(found["test_tau"]["value"]),
                    "verdict": short_verdict(chance),
                    "verdict_top": f"the better half: {short_verdict(top)} ({in_points(top['spread'])})",
                    "differ": chance["differ"],
                    "differ_top": top["differ"],
                }
            )
    return rows


def _everything(result: Json) -> list[Row]:
    """Every proxy at every budget and length."""
    return [
        {
            "name": f"{budget}, {steps} steps",
            "proxy": f"{repair} × {score}",
            "values": {
                key: two_digits(ranking[key]["value"] if isinstance(ranking[key], Mapping) else ranking[key])
                for key in COLUMNS
            },
        }
        for budget, level in result["budgets"].items()
        for steps, found in level["truth"].items()
        for repair, scores in found["rankings"].items()
        for score, ranking in scores.items()
        if ranking
    ]


def _facts(result: Json) -> list[tuple[str, str]]:
    """What was measured, with what, where and when."""
    run, samples = result["run"], result["samples"]
    levels = [f"{level['plans']} at {budget}, {level['repeated']} of them from {result['seeds']} seeds"
              for budget, level in result["budgets"].items()]  # fmt: skip
    facts = [
        ("Task", str(result["task"])),
        ("Plans", "; ".join(levels)),
        ("Samples", f"{samples['proxy']} for proxies, {samples['held_out']} held out, {samples['test']} for tests"),
        ("Recovery", ", ".join(f"{steps} steps" for steps in result["lengths"])),
        ("Dense accuracy", ", ".join(f"{role} {percent(m['accuracy'])}" for role, m in result["dense"].items())),
    ]
    if "overrides" in run:
        facts.append(("Launched as", shlex.join(["autoprune", "fidelity", *map(str, run["overrides"])])))
    for term in ("Commit", "Started", "Seed"):
        if run.get(term.lower()) is not None:
            facts.append((term, str(run[term.lower()])))
    for term in ("Machine", "Versions"):
        if values := run.get(term.lower()):
            facts.append((term, ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)))
    return facts + [(f"Data, {role}", str(digest)) for role, digest in (run.get("data") or {}).items()]
