"""A comparison as tables in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.report.comparison_wording import (
    REGIMES,
    against_all,
    agent_sentence,
    agents_of,
    headline,
    interval,
    policy_score,
    second_line,
)
from autoprune.report.wording import DASH, percent

Json = Mapping[str, Any]
CELLS = 3  # tasks and budgets that have columns of their own
MOST_AGENTS, NAMES = 8, 6  # agents with a sentence of their own, and names in a row; the page has all of them


def print_comparison(result: Json, console: Console | None = None) -> None:
    """Prints the ranking of each regime, what can be said of the agents, and what is missing.

    Args:
        result: The comparison, as it is written down.
        console: Where it is printed; None for the terminal.
    """
    console = console or Console()
    for regime, title in REGIMES.items():
        if agents_of(result, regime):
            title = "policy's own plan" if result.get("by") == "policy" else title
            console.print(_that_fits(result, regime, title, console))
            for name, groups in against_all(result, regime)[:MOST_AGENTS]:
                if groups:
                    sentence = f"{name} ({title}): {agent_sentence(groups, most=NAMES)}."
                    console.print(sentence, style="dim", markup=False, highlight=False)
    for caveat in result["caveats"]:
        console.print(caveat, style="yellow", markup=False, highlight=False)
    for job in result["missing"]:
        console.print(f"missing: {job['what'] or job['where']}: {job['reason']}", style="yellow", markup=False)
    console.print(f"{headline(result)}.", style="bold", markup=False, highlight=False)
    console.print(second_line(result), markup=False, highlight=False)


def _that_fits(result: Json, regime: str, title: str, console: Console) -> Table:
    """With a column for each task and budget where these are few and fit into the console; the page has all of them."""
    table = _table(result, regime, title, result["cells"][:CELLS])
    unbounded = console.options.update(width=10_000)
    fits = len(result["cells"]) <= CELLS and console.measure(table, options=unbounded).maximum <= console.width
    return table if fits else _table(result, regime, title, [])


def _table(result: Json, regime: str, title: str, cells: Sequence[Json]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column(f"{title}\n", no_wrap=True)
    table.add_column("score\n" if regime == "post_training" else "points above\nuniform", justify="right", no_wrap=True)
    policies = regime == "post_training" and bool(result.get("policies"))
    if policies:
        table.add_column("policy's\nown plan", justify="right", no_wrap=True)
    for cell in cells:
        table.add_column(f"{escape(cell['cell'][0])}\n{escape(cell['cell'][1])}", justify="right", no_wrap=True)
    table.add_column("seeds\n", justify="right", no_wrap=True)
    table.add_column("agent,\nms/plan", justify="right", no_wrap=True)
    accuracy = {(entry["label"], *entry["cell"]): entry["accuracy"] for entry in result[regime]["accuracy"]}
    seconds = {entry["label"]: entry["agent_each"] for entry in result["seconds"]}
    for agent in result[regime]["agents"]:
        label, seeds = agent["label"], sorted({cell["seeds"] for cell in agent["cells"]})
        table.add_row(
            escape(label),
            interval(agent["iqm"], regime) if agent["ranked"] else "one seed",
            *([policy_score(result, label)] if policies else []),
            *(percent(accuracy.get((label, *cell["cell"]))) for cell in cells),
            "any" if agent["deterministic"] else "–".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
            DASH if label not in seconds else f"{1000 * seconds[label]:.3g}",
            style="dim" if result["agents"][label]["baseline"] else None,
        )
    return table
