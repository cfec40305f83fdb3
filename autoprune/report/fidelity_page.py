"""The fidelity report: one HTML file that opens offline, from `fidelity.json` only; and what it says, in sentences."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.report import fidelity_figures as figures
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.template import page
from autoprune.report.wording import DASH, GAP, duration, number, origin, percent
from autoprune.runs import RunFolder

PAGE = "fidelity.html"
Json = Mapping[str, Any]
TOP = {"tau": "All plans", "tau_top": "The better half"}
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
    """`fidelity.html` stands in the study's folder. Returns its path."""
    folder.write_text(PAGE, render_fidelity(folder.read_json("fidelity.json")))
    return folder.path / PAGE


def render_fidelity(result: Json) -> str:
    """The page as text."""
    budget, steps = result["main"]["budget"], str(result["main"]["length"])
    name = result["run"].get("name") or result["task"]
    choices = [(entry["repair"], entry["score"]) for entry in (result["recommendation"], result["default"]) if entry]
    return page(
        "fidelity_page.html.jinja",
        title=f"Fidelity of {name}",
        above=f"fidelity · {name}",
        headline=headline(result),
        lead=[reason(result)],
        result=result,
        agreement=figures.agreement(result, list(dict.fromkeys(choices)), budget=budget, steps=steps),
        proxies=_proxies(result),
        ceiling=_ceiling(result),
        differences=figures.differences(result),
        levels=_levels(result),
        additivity=figures.alone_and_together(result["additivity"]),
        everything=_everything(result),
        facts=_facts(result),
    )


def headline(result: Json) -> str:
    """What the study says, in one sentence."""
    chosen, main, trials = result["recommendation"], main_truth(result), result["trials"]
    budget, length = result["main"]["budget"], f"{result['main']['length']} steps of recovery"
    if chosen is None:
        done = f"{trials['done']} of {trials['of']} recoveries are done"
        return f"An unfinished study of {result['task']}: {done}" + (f"; so far, {main['verdict']}" if main else "")
    if chosen["reaches"] is None:
        return f"At {budget} after {length}, {main['verdict']}"
    highest = main["chance"]["accuracy"]["tau"]
    tau = f"τ = {number(chosen['tau']['value'])}"
    tau += "" if highest is None else f" (a perfect proxy would have {number(highest)})"
    which = f"{chosen['repair']} × {chosen['score']} ranks plans"
    if chosen["reaches"]:
        return f"{which} as {length} do: {tau}"
    return f"{which} only partly as recovery does at {budget} after {length}: {tau}, less than {result['bar']}"


def reason(result: Json) -> str:
    """Which repair and score is recommended, and by which rule."""
    chosen = result["recommendation"]
    if chosen is None:
        return "There is a recommendation once every plan has been recovered in full and judged by every repair."
    which, now = (f"{entry['repair']} × {entry['score']}" for entry in (chosen, result["default"]))
    if chosen["rule"] == "kept":
        return f"The default, {now}, stays: there is nothing to choose by."
    why = {
        "best": "which has the highest τ",
        "default": "the default already: nothing as cheap is better by a standard error",
        "cheaper": "the cheapest of those that are within a standard error of the highest τ",
    }[chosen["rule"]]
    sentences = [f"Recommended: {which}, {why}."]
    if len(chosen["tied"]) > 1:
        sentences.append(f"{len(chosen['tied']) - 1} of the others are as good within the standard error over plans.")
    if which != now:
        sentences.append(f"The default so far is {now}.")
    top, verdict = number(chosen["tau_top"]["value"], digits=2), main_truth(result)["verdict_top"]
    return " ".join([*sentences, f"Within the better half its τ is {top}: there, {verdict}."])


def main_truth(result: Json) -> Any:
    """At the first budget after the full recovery; None before there is any."""
    return result["budgets"][result["main"]["budget"]]["truth"].get(str(result["main"]["length"]))


def _proxies(result: Json) -> PageTable:
    """One row per repair: τ of each score over all plans and over the better half, and what an evaluation costs."""
    rankings, chosen = (main_truth(result) or {"rankings": {}})["rankings"], result["recommendation"] or {}
    rows = []
    for name, proxy in result["budgets"][result["main"]["budget"]]["proxies"].items():
        cells = []
        for half in TOP:
            for score in result["scores"]:
                best = half == "tau" and (name, score) == (chosen.get("repair"), chosen.get("score"))
                estimate = ((rankings.get(name) or {}).get(score) or {}).get(half)
                cells.append(_tau(estimate, bar=result["bar"], best=best))
        failed = f"{proxy['failed']} could not be judged" if proxy["failed"] else ""
        rows.append(Row(name, [*cells, Cell(_brief(proxy["seconds"]))], note=failed))
    return PageTable([*((title, s) for title in TOP.values() for s in result["scores"]), ("", "cost")], rows, "heats")


def _tau(estimate: Json | None, *, bar: float, best: bool) -> Cell:
    """τ in words and as heat: none at no correlation, 60 % at a perfect one; one that reaches the bar is strong."""
    value = estimate["value"] if estimate else None
    if estimate is None or value is None:
        return Cell(DASH)
    ends = "" if estimate["low"] is None else " to ".join(number(estimate[end], digits=2) for end in ("low", "high"))
    style = " ".join(name for name, holds in (("strong", value >= bar), ("best", best)) if holds)
    return Cell(number(value, digits=2), small=ends, heat=round(60 * max(0.0, value)), style=style)


def _ceiling(result: Json) -> str:
    """What τ could be at most, and what the truth costs."""
    main, seconds = main_truth(result), result["seconds"].get(str(result["main"]["length"]))
    sentences = []
    if main and main["chance"]["accuracy"]["tau"] is not None:
        highest, top = (number(noise["tau"], digits=2) for noise in (main["chance"]["accuracy"], main["chance_top"]))
        sentences.append(
            f"A perfect proxy would have τ = {highest} over all plans and {top} over the better half, as truths are "
            "themselves noisy (simulated: normal noise on the plans' accuracies, these drawn together by their noise)."
        )
    if seconds is not None:
        sentences.append(f"The truth itself costs {_brief(seconds)} a plan.")
    return " ".join(sentences)


def _truths(result: Json) -> Iterator[tuple[str, str, Json]]:
    """(budget, steps, what is true there) for every budget and length of recovery."""
    return ((b, steps, truth) for b, level in result["budgets"].items() for steps, truth in level["truth"].items())


def _levels(result: Json) -> PageTable:
    """How far plans are apart, beside how far seeds are."""
    rows = []
    for budget, steps, truth in _truths(result):
        noise, top = truth["chance"]["accuracy"], truth["chance_top"]
        accuracies = [sum(values) / len(values) for values in truth["accuracy"]]
        numbers = [noise["reliability"], noise["tau"], truth["test_tau"]["value"]]
        texts = [str(len(accuracies)), percent(sum(accuracies) / len(accuracies)), _points(noise["spread"])]
        texts += [_points(noise["noise"]), *(number(value, digits=2) for value in numbers)]
        better = f"the better half: {_short_verdict(top)} ({_points(top['spread'])})"
        verdict = Cell(_short_verdict(noise), small=better, style="words" if noise["differ"] else "words warn")
        main = (budget, steps) == (result["main"]["budget"], str(result["main"]["length"]))
        rows.append(Row(f"{budget}, {steps} steps", [*map(Cell, texts), verdict], chosen=main))
    titles = ("plans", "mean accuracy", "spread", "noise", "reliability", "highest τ", "τ to test", "verdict")
    return PageTable([("", title) for title in titles], rows)


def _everything(result: Json) -> PageTable:
    """Every proxy at every budget and length."""
    rows = []
    for budget, steps, truth in _truths(result):
        for repair, scores in truth["rankings"].items():
            for score, ranking in scores.items():
                entries = [ranking[key] for key in COLUMNS] if ranking else []
                values = [entry["value"] if isinstance(entry, Mapping) else entry for entry in entries]
                if ranking:
                    cells = [Cell(number(value, digits=2)) for value in values]
                    rows.append(Row(f"{budget}, {steps} steps", [Cell(f"{repair} × {score}", style="words"), *cells]))
    return PageTable([("", title) for title in ("proxy", *COLUMNS.values())], rows, "fine")


def _facts(result: Json) -> list[tuple[str, str]]:
    """What was measured, with what, where and when."""
    samples = result["samples"]
    plans = [
        f"{level['plans']} at {budget}, {level['repeated']} of them from {result['seeds']} seeds"
        for budget, level in result["budgets"].items()
    ]
    return [
        ("Task", str(result["task"])),
        ("Plans", "; ".join(plans)),
        ("Samples", f"{samples['proxy']} for proxies, {samples['held_out']} held out, {samples['test']} for tests"),
        ("Recovery", ", ".join(f"{steps} steps" for steps in result["lengths"])),
        ("Dense accuracy", ", ".join(f"{role} {percent(m['accuracy'])}" for role, m in result["dense"].items())),
        *origin(result["run"], command="fidelity"),
    ]


def _short_verdict(noise: Json) -> str:
    """Whether the plans can be told from one another."""
    if noise["spread"] is None:
        return "too few plans"
    if noise["p"] is None:
        return "unknown: no plan has two seeds"
    return "the plans differ" if noise["differ"] else "nothing can rank these plans"


def _points(fraction: float | None) -> str:
    return DASH if fraction is None else number(100 * fraction, digits=2)


def _brief(seconds: float) -> str:
    return f"{1000 * seconds:.0f}{GAP}ms" if seconds < 1 else duration(seconds)
