"""A fidelity study in words: what was found, what is recommended and why."""

from collections.abc import Mapping
from typing import Any

from autoprune.report.wording import DASH, GAP, duration, number

Json = Mapping[str, Any]


def headline(result: Json) -> str:
    """What was found, in one sentence."""
    found, main = result["recommendation"], main_truth(result)
    trials = result["trials"]
    if found is None:
        done = f"{trials['done']} of {trials['of']} recoveries are done"
        return f"An unfinished study of {result['task']}: {done}" + (f"; so far, {main['verdict']}" if main else "")
    where = f"at {result['main']['budget']} after {result['main']['length']} steps of recovery"
    if found["reaches"] is None:
        return f"At {result['main']['budget']} after {result['main']['length']} steps of recovery, {main['verdict']}"
    which, tau = f"{found['repair']} × {found['score']}", number(found["tau"]["value"])
    limit = main["chance"]["accuracy"]["tau"]
    most = "" if limit is None else f" (a perfect proxy would have {number(limit)})"
    if found["reaches"]:
        return f"{which} ranks plans as {result['main']['length']} steps of recovery do: τ = {tau}{most}"
    return f"{which} ranks plans only partly as recovery does {where}: τ = {tau}{most}, less than {result['bar']}"


def reason(result: Json) -> str:
    """Which repair and score is recommended, and by which rule."""
    found, default = result["recommendation"], result["default"]
    if found is None:
        return "There is a recommendation once every plan has been recovered in full and judged by every repair."
    which, now = f"{found['repair']} × {found['score']}", f"{default['repair']} × {default['score']}"
    others = max(0, len(found["tied"]) - 1)
    why = {
        "kept": f"The default, {now}, stays: there is nothing to choose by.",
        "best": f"Recommended: {which}, which has the highest τ.",
        "default": f"Recommended: {which}, the default already: nothing as cheap is better by a standard error.",
        "cheaper": f"Recommended: {which}, the cheapest of those that are within a standard error of the highest τ.",
    }[found["rule"]]
    if found["rule"] == "kept":
        return why
    tau_top, verdict_top = two_digits(found["tau_top"]["value"]), main_truth(result)["verdict_top"]
    top = f" Within the better half its τ is {tau_top}: there, {verdict_top}."
    tied = f" {others} of the others are as good within the standard error over plans." if others else ""
    change = "" if which == now else f" The default so far is {now}."
    return why + tied + change + top


def short_verdict(chance: Json) -> str:
    """Whether the plans can be told from one another."""
    if chance["spread"] is None:
        return "too few plans"
    if chance["p"] is None:
        return "unknown: no plan has two seeds"
    return "the plans differ" if chance["differ"] else "nothing can rank these plans"


def main_truth(result: Json) -> Any:
    """At the first budget after the full recovery; None before there is any."""
    level = result["budgets"][result["main"]["budget"]]
    return level["truth"].get(str(result["main"]["length"]))


def two_digits(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}".replace("-", "−")


def in_points(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.2f}"


def brief(seconds: float | None) -> str:
    return f"{1000 * seconds:.0f}{GAP}ms" if seconds is not None and seconds < 1 else duration(seconds)
