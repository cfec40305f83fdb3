"""The figures of a fidelity study: proxy against truth, differences against chance, groups alone against together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from autoprune.report.drawing import COLOURS, Picture, picture
from autoprune.report.wording import number

Json = Mapping[str, Any]
Choice = tuple[str, str]  # repair, score
SCORES = {"accuracy": "accuracy", "loss": "− loss", "kl": "− KL to dense", "agreement": "agreement with dense"}


def agreement(result: Json, choices: Sequence[Choice], *, budget: str, steps: str) -> Picture | None:
    """Each plan's proxy against its recovered accuracy, for one or more proxies of one budget and length."""
    truth = result["budgets"][budget]["truth"].get(steps)
    known = [choice for choice in choices if truth and truth["rankings"].get(choice[0], {}).get(choice[1])]
    if not truth or not known:
        return None
    means = np.array([np.mean(values) for values in truth["accuracy"]])
    seeds = np.array([len(values) for values in truth["accuracy"]])
    noise = truth["chance"]["accuracy"]["noise"]
    errors = np.zeros(len(means)) if noise is None else noise / np.sqrt(seeds)
    better, uniform = np.isin(truth["plans"], truth["better_half"]), np.array(truth["plans"]) == 0
    everyone = np.ones(len(means), bool)

    def draw(figure: Figure, narrow: bool) -> None:
        shape = (2 * len(known), 1) if narrow else (len(known), 2)
        grid = figure.subplots(*shape, squeeze=False).reshape(len(known), 2)
        for (repair, score), pair in zip(known, grid, strict=True):
            x = np.array(result["budgets"][budget]["proxies"][repair]["scores"][score], np.float64)[truth["plans"]]
            for axes, which, title in zip(pair, (everyone, better), ("all plans", "the better half"), strict=True):
                axes.errorbar(
                    x[which], means[which], yerr=errors[which], fmt="none", ecolor=COLOURS["point"], elinewidth=1.3
                )
                kinds = (("point", "o", ~better), ("searched", "o", better & ~uniform), ("uniform", "s", uniform))
                _points(axes, x, means, [(colour, marker, part & which) for colour, marker, part in kinds])
                axes.set_title(title, fontsize=12.5, color=COLOURS["ink"], loc="left")
                axes.set_xlabel(f"{SCORES.get(score, score)}, repair {repair}")
                axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
                axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy after recovery" if int(steps) else "accuracy before recovery")

    key = [("searched", "o", "a plan of the better half"), ("point", "o", "of the other half")]
    key += [("uniform", "s", "uniform")] if uniform.any() else []
    taus = "; ".join(_taus(truth, repair, score) for repair, score in known)
    caption = (
        f"{len(means)} plans that fill {budget}. Across: what a search sees, on its proxy samples. Up: held-out "
        f"accuracy after {steps} steps of recovery, with one standard deviation of what another seed does. {taus}."
    )
    height = {True: 500 * len(known), False: 350 * len(known)}
    return picture(
        "What a search sees, and what recovery makes of it",
        caption,
        key=key,
        draw=draw,
        height=lambda narrow: height[narrow],
    )


def differences(result: Json) -> Picture | None:
    """Per budget and length of recovery: how far plans are apart, and how far another seed takes one of them."""
    rows = [
        (f"{budget}, {steps} steps", found["chance"]["accuracy"], found["chance_top"])
        for budget, level in result["budgets"].items()
        for steps, found in level["truth"].items()
        if found["chance"]["accuracy"]["spread"] is not None
    ]
    if not rows:
        return None
    of_all, of_top = [every for _, every, _ in rows], [top for *_, top in rows]

    def draw(figure: Figure, narrow: bool) -> None:
        axes, places = figure.subplots(), np.arange(len(rows))
        axes.grid(visible=False, axis="y")
        noise, of_half, spread = (
            np.array([np.nan if found[key] is None else 100 * found[key] for found in column], np.float64)
            for key, column in (("noise", of_all), ("spread", of_top), ("spread", of_all))
        )
        axes.hlines(places, np.fmin(noise, of_half), spread, color=COLOURS["grid"], lw=4)
        axes.scatter(noise, places, s=46, facecolors=COLOURS["surface"], edgecolors=COLOURS["ink"], lw=1.7, zorder=3)
        for values, marker, column in ((of_half, "D", of_top), (spread, "o", of_all)):
            colours = [COLOURS["searched" if found["differ"] else "uniform"] for found in column]
            axes.scatter(values, places, s=46, marker=marker, color=colours, zorder=4)
        axes.set_yticks(places, [name for name, *_ in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(-0.01, None)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("percentage points of held-out accuracy")

    key = [("ink", "ring", "between seeds of one plan"), ("searched", "o", "between all plans")]
    key.append(("searched", "D", "between those of the better half"))
    key += [] if all(found["differ"] for found in (*of_all, *of_top)) else [("uniform", "o", "not told from chance")]
    caption = "Standard deviations. Only where plans are further apart than seeds is there anything to rank."
    return picture("Do plans differ at all?", caption, key=key, draw=draw, height=lambda narrow: 70 + 34 * len(rows))


def alone_and_together(found: Json | None) -> Picture | None:
    """The sum of what groups lose alone against what they lose together, with the line on which losses add up."""
    if not found:
        return None
    total, joint = np.array(found["sum"], np.float64), np.array(found["joint"], np.float64)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        ends = np.array([min(total.min(), joint.min()), max(total.max(), joint.max())])
        axes.plot(ends, ends, color=COLOURS["muted"], lw=1.2, ls=(0, (5, 3)))
        _points(axes, total, joint, [("searched", "o", np.ones(len(total), bool))])
        if ends[0] > 0:
            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_locator(NullLocator())
        axes.set_xlabel("sum of the KLs of its groups, each pruned alone")
        axes.set_ylabel("KL of the whole plan")

    caption = (
        f"With the repair {found['repair']}, at {found['budget']}, in nats. R² = {number(found['r2'])}; together "
        f"groups lose {number(found['ratio'])} times what they lose alone (median); the sum ranks the plans' own KLs "
        f"with τ = {number(found['tau'])}. The sensitivity-based plan assumes that losses add up."
    )
    key = [("searched", "o", "a plan"), ("muted", "dash", "losses add up")]
    return picture("Groups alone and together", caption, key=key, draw=draw, height=lambda narrow: 300)


def _points(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], kinds: Sequence[tuple[str, str, NDArray[np.bool_]]]
) -> None:
    for colour, marker, which in kinds:
        axes.scatter(
            x[which], y[which], marker=marker, s=44, color=COLOURS[colour], edgecolors=COLOURS["surface"],
            linewidths=0.8, zorder=4,
        )  # fmt: skip


def _taus(truth: Json, repair: str, score: str) -> str:
    every, top = (number(truth["rankings"][repair][score][key]["value"]) for key in ("tau", "tau_top"))
    return f"{repair} × {score}: τ = {every}, in the better half {top}"
