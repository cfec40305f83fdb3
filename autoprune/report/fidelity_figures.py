"""The figures of a fidelity study: proxy against truth, differences against noise, groups alone against together."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from autoprune.report.drawing import COLOURS, DASHED, Key, Picture, log_axis, name_rows, percent_axis, picture
from autoprune.report.wording import number
from autoprune.statistics import Floats

Json = Mapping[str, Any]
Bools = NDArray[np.bool_]
SCORES = {"accuracy": "accuracy", "loss": "− loss", "kl": "− KL to dense", "agreement": "agreement with dense"}


def agreement(result: Json, choices: Sequence[tuple[str, str]], *, budget: str, steps: str) -> Picture | None:
    """Each plan's proxy against its recovered accuracy.

    Args:
        result: What fidelity.json holds.
        choices: (repair, score) of one or more proxies.
        budget: Of the plans.
        steps: Of their recovery.
    """
    truth = result["budgets"][budget]["truth"].get(steps) or {"rankings": {}}
    ranked = {
        (repair, score): truth["rankings"][repair][score]
        for repair, score in choices
        if truth["rankings"].get(repair, {}).get(score)
    }
    if not ranked:
        return None
    means = np.array([np.mean(values) for values in truth["accuracy"]])
    noise, seeds = truth["chance"]["accuracy"]["noise"], np.array([len(values) for values in truth["accuracy"]])
    errors = np.zeros(len(means)) if noise is None else noise / np.sqrt(seeds)
    better, uniform = np.isin(truth["plans"], truth["better_half"]), np.array(truth["plans"]) == 0

    def draw(axes: Axes, choice: tuple[str, str], chosen: Bools, heading: str) -> None:
        repair, score = choice
        x = np.array(result["budgets"][budget]["proxies"][repair]["scores"][score], np.float64)[truth["plans"]]
        bars: dict[str, Any] = {"fmt": "none", "ecolor": COLOURS["point"], "elinewidth": 1.3}
        axes.errorbar(x[chosen], means[chosen], yerr=errors[chosen], **bars)
        kinds = (("point", "o", ~better), ("searched", "o", better & ~uniform), ("uniform", "s", uniform))
        for colour, marker, part in kinds:
            _points(axes, x[part & chosen], means[part & chosen], colour, marker)
        axes.set(title=heading, xlabel=f"{SCORES.get(score, score)}, repair {repair}")
        axes.set_ylabel(f"accuracy {'after' if int(steps) else 'before'} recovery")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        percent_axis(axes.yaxis, digits=1, ticks=6)

    key = [("searched", "o", "a plan of the better half"), ("point", "o", "of the other half")]
    key += [("uniform", "s", "uniform")] if uniform.any() else []
    taus = {
        choice: [number(agreement[key]["value"]) for key in ("tau", "tau_top")] for choice, agreement in ranked.items()
    }
    each = "; ".join(f"{' × '.join(c)}: τ = {every}, in the better half {top}" for c, (every, top) in taus.items())
    caption = (
        f"{len(means)} plans that fill {budget}. Across: what a search sees, on its proxy samples. Up: held-out "
        f"accuracy after {steps} steps of recovery, with one standard deviation of what another seed does. {each}."
    )
    halves = (("all plans", np.ones(len(means), bool)), ("the better half", better))
    panels = [partial(draw, choice=c, chosen=half, heading=heading) for c in ranked for heading, half in halves]
    return picture("What a search sees, and what recovery makes of it", caption, panels, key=key, height=350)


def differences(result: Json) -> Picture | None:
    """Per budget and length of recovery: how far plans are apart, and how far another seed takes one of them."""
    rows = [
        (f"{budget}, {steps} steps", truth["chance"]["accuracy"], truth["chance_top"])
        for budget, level in result["budgets"].items()
        for steps, truth in level["truth"].items()
        if truth["chance"]["accuracy"]["spread"] is not None
    ]
    if not rows:
        return None
    of_all, of_top = [every for _, every, _ in rows], [top for *_, top in rows]
    noise, half, spread = (
        np.array([np.nan if entry[key] is None else 100 * entry[key] for entry in entries], np.float64)
        for key, entries in (("noise", of_all), ("spread", of_top), ("spread", of_all))
    )

    def draw(axes: Axes) -> None:
        places = name_rows(axes, [name for name, *_ in rows], longest=26)
        axes.hlines(places, np.fmin(noise, half), spread, color=COLOURS["grid"], lw=4)
        axes.scatter(noise, places, s=46, facecolors=COLOURS["surface"], edgecolors=COLOURS["ink"], lw=1.7, zorder=3)
        for values, marker, entries in ((half, "D", of_top), (spread, "o", of_all)):
            colours = [COLOURS["searched" if entry["differ"] else "uniform"] for entry in entries]
            axes.scatter(values, places, s=46, marker=marker, color=colours, zorder=4)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(-0.01, None)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("percentage points of held-out accuracy")

    key: list[Key] = [("ink", "ring", "between seeds of one plan"), ("searched", "o", "between all plans")]
    key.append(("searched", "D", "between those of the better half"))
    key += [] if all(entry["differ"] for entry in (*of_all, *of_top)) else [("uniform", "o", "not told from chance")]
    caption = "Standard deviations. Only where plans are further apart than seeds is there anything to rank."
    return picture("Do plans differ at all?", caption, [draw], key=key, height=76 + 36 * len(rows))


def alone_and_together(additivity: Json | None) -> Picture | None:
    """The sum of what groups lose alone against what they lose together, with the line on which losses add up."""
    if not additivity:
        return None
    total, joint = np.array(additivity["sum"], np.float64), np.array(additivity["joint"], np.float64)

    def draw(axes: Axes) -> None:
        ends = np.array([min(total.min(), joint.min()), max(total.max(), joint.max())])
        axes.plot(ends, ends, color=COLOURS["muted"], lw=1.2, ls=DASHED)
        _points(axes, total, joint, "searched", "o")
        if ends[0] > 0:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                log_axis(axis, subs=(1, 2, 5))
        axes.set(xlabel="sum of the KLs of its groups, each pruned alone", ylabel="KL of the whole plan")

    caption = (
        f"With the repair {additivity['repair']}, at {additivity['budget']}, in nats. R² = {number(additivity['r2'])}; "
        f"together groups lose {number(additivity['ratio'])} times what they lose alone (median); the sum ranks the "
        f"plans' own KLs with τ = {number(additivity['tau'])}. The sensitivity-based plan assumes that losses add up."
    )
    key = [("searched", "o", "a plan"), ("muted", "dash", "losses add up")]
    return picture("Groups alone and together", caption, [draw], key=key, height=330)


def _points(axes: Axes, x: Floats, y: Floats, colour: str, marker: str) -> None:
    style: dict[str, Any] = {"edgecolors": COLOURS["surface"], "linewidths": 0.8, "zorder": 4}
    axes.scatter(x, y, marker=marker, s=44, color=COLOURS[colour], **style)
