"""`autoprune front`: accuracy against measured latency, from runs under several budgets."""

from collections.abc import Sequence
from pathlib import Path

from autoprune.cli.arguments import new_folder, read_arguments
from autoprune.cli.session import run_command
from autoprune.cli.validation import Section
from autoprune.ranges import Text

USAGE = """usage: autoprune front RUN|SWEEP … [out=DIR]

Accuracy against measured latency, from runs of one task under several budgets. out= is the folder of the page."""


class FrontSettings(Section):
    """What is written KEY=VALUE."""

    out: Text | None = None


def front(arguments: Sequence[str]) -> None:
    """Writes the page and says where it is. Errors are sentences."""
    run_command(lambda: _front(arguments))


def _front(arguments: Sequence[str]) -> None:
    from autoprune.report.front_page import headline, write_front_page
    from autoprune.report.latency_front import fronts
    from autoprune.report.progress import announced

    folders, settings = read_arguments(arguments, FrontSettings, command="autoprune front")
    if not folders:
        raise ValueError(f"front needs folders of runs\n{USAGE}")
    with announced("reading runs"):
        budget_fronts = fronts([Path(folder) for folder in folders])
    out = None if settings["out"] is None else Path(settings["out"])
    page = write_front_page(budget_fronts, new_folder(out, "front"))
    print(f"{headline(budget_fronts)}.\npage: {page}")
