"""`autoprune front`: accuracy against measured latency, from runs under several budgets."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

USAGE = "usage: autoprune front RUN|SWEEP … [out=DIR]"


def front(arguments: Sequence[str]) -> None:
    """Writes the page and says where it is. Errors are sentences."""
    from autoprune.report.front_page import headline, write_front_page
    from autoprune.report.latency_front import fronts

    outs = [argument.partition("=")[2] for argument in arguments if argument.startswith("out=")]
    folders = [Path(argument) for argument in arguments if not argument.startswith("out=")]
    if not folders or len(outs) > 1:
        sys.exit(f"error: front needs folders of runs, and at most one out=DIR\n{USAGE}")
    try:
        found = fronts(folders)
        now = datetime.now(UTC)
        out = Path(outs[0]) if outs else Path("runs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_front"
        out.mkdir(parents=True, exist_ok=True)
        page = write_front_page(found, out)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{headline(found)}.\npage: {page}")
