"""What `autoprune profile` prints: what groups cost, and predictions beside measurements."""

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from autoprune.cost.model import CostModel, FloatArray
from autoprune.device.agreement import agreement
from autoprune.device.device import preferred_levels
from autoprune.structure.groups import IntArray, Structure

SHARES = (0.75, 0.5, 0.25)  # of a group's units
SHOWN = 8  # preferred widths, the widest ones


def print_profile(
    structure: Structure,
    latency: CostModel,
    plans: IntArray,
    minimum_ms: FloatArray,
    median_ms: FloatArray,
    *,
    console: Console | None = None,
) -> None:
    """Prints what groups save and where steps are, and predictions beside what was measured.

    Args:
        structure: The network's groups and layers.
        latency: The latency of plans, in milliseconds.
        plans: Plans of the whole network [plans, groups].
        minimum_ms: What each took at the least [plans].
        median_ms: What each took in the middle [plans].
        console: Where it is printed; None for the terminal.
    """
    console = console or Console()
    console.print(_groups(structure, latency))
    predicted = latency(plans)
    console.print(_plans(structure, plans, predicted, minimum_ms, median_ms))
    fit = agreement(predicted, minimum_ms)
    console.print(
        f"Predictions are off by {100 * fit.error:.1f} % on average and {100 * fit.largest:.1f} % at most "
        f"(Spearman {fit.spearman:.3f}) on {len(plans)} plans that they were not fitted to.",
        style="bold", highlight=False, soft_wrap=True,
    )  # fmt: skip


def _groups(structure: Structure, latency: CostModel) -> Table:
    table = _table("group", "units", *(f"{share:.0%} kept" for share in SHARES), "preferred widths")
    dense = float(latency(structure.units))
    for number, group in enumerate(structure.groups):
        kept = np.array([max(1, round(share * group.units)) for share in SHARES], np.int64)
        saved = [dense - ms for ms in latency.along(structure.units, number, kept).tolist()]
        widths = [str(level) for level in preferred_levels(latency, structure, group)]
        last_widths = (["…"] if len(widths) > SHOWN else []) + widths[-SHOWN:]
        table.add_row(group.name, str(group.units), *(f"{-1e3 * ms:+.1f} µs" for ms in saved), " ".join(last_widths))
    return table


def _plans(
    structure: Structure, plans: IntArray, predicted: FloatArray, minimum_ms: FloatArray, median_ms: FloatArray
) -> Table:
    table = _table("random plan, units kept", "predicted", "measured", "median", "error")
    share = plans.sum(axis=1) / structure.units.sum()
    for kept, guess, least, median in zip(share, predicted, minimum_ms, median_ms, strict=True):
        error = f"{100 * (guess / least - 1):+.1f} %"
        table.add_row(f"{kept:.0%}", f"{guess:.3f} ms", f"{least:.3f} ms", f"{median:.3f} ms", error)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index != len(columns) - 1)
    return table
