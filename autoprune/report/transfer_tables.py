"""What `autoprune train` prints: how good the policy is on networks that it has never seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from autoprune.transfer.held_out import RETURNED, HeldOut
from autoprune.transfer.policy import POLICY, SENSITIVITY


def print_trained(rows: Sequence[HeldOut], folder: Path, *, console: Console | None = None) -> None:
    """A line for each network and budget, and where the policy is. Scores: 0 the uniform plan, 1 the best known.

    Args:
        rows: A row for each network and budget that was held out.
        folder: The policy's.
        console: Where it is printed; None for the terminal.
    """
    console = console or Console()
    if rows:
        console.print(_table(rows))
        returned, sensitivity = (np.mean([row.score(plan) for row in rows]) for plan in (RETURNED, SENSITIVITY))
        console.print(
            f"On networks that it has not seen, what the policy returns scores {returned:.2f} on average, the "
            f"sensitivity plan {sensitivity:.2f}.",
            style="bold", highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"policy: {folder}", highlight=False, soft_wrap=True)


def _table(rows: Sequence[HeldOut]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="0: as the uniform plan, 1: as the best known", title_justify="left")
    table.add_column("network", overflow="fold", min_width=max(len(row.network) for row in rows))
    table.add_column("budget")
    for name in ("sensitivity", "policy", "returned"):
        table.add_column(name, justify="right")
    table.add_column("whose")
    for row in rows:
        scores = [row.score(plan) if plan in row.kl["search"] else None for plan in (SENSITIVITY, POLICY, RETURNED)]
        table.add_row(
            row.network, row.budget, *("–" if score is None else f"{score:.2f}" for score in scores), row.chosen
        )
    return table
