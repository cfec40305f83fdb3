"""A run's comparison as a table in the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autoprune.report.contents import Contents, NetworkReport, read_contents
from autoprune.report.measures import measure_table, samples
from autoprune.report.run_facts import harmed
from autoprune.report.wording import (
    RUNTIMES,
    Quality,
    choice,
    headline,
    median,
    milliseconds,
    on_device,
    on_the_disk,
    percent,
    share,
    size,
    speedup,
    theoretical_speedup,
    times,
    without_kernel,
)
from autoprune.runs import RunFolder

WIDE = 124  # columns that the whole table takes; a narrower terminal gets the essential ones
STYLES = {"dense": "bright_black", "uniform": "yellow", "sensitivity": "green", "searched": "bold blue"}


def print_result(folder: RunFolder, console: Console | None = None) -> None:
    """Prints the table of a finished run and one sentence; of an unfinished one, how far it has come.

    Args:
        folder: The run's folder.
        console: Where it is printed; None for the terminal.
    """
    console = console or Console()
    contents = read_contents(folder)
    if contents.networks:
        console.print()
        console.print(_table(contents, wide=console.width >= WIDE))
        console.print()
        if any(network.measures for network in contents.networks):
            console.print(_measures(contents))
            for title, texts in samples(contents.networks):
                console.print(title, style="bold", markup=False, highlight=False)
                for network, text in texts:
                    console.print(Text.assemble((f"{network.name}: ", STYLES[network.name]), " ".join(text.split())))
                console.print()
        console.print(choice(contents), style="dim", markup=False, highlight=False)
        for note in filter(
            None, (harmed(contents), on_device(contents), without_kernel(contents), on_the_disk(contents))
        ):
            console.print(note, style="dim", markup=False, highlight=False)
    for sentence in contents.uncounted:
        console.print(f"Not in the costs: {sentence}", style="yellow", markup=False, highlight=False)
    console.print(f"{headline(contents)}.", style="bold", markup=False, highlight=False)


def _table(contents: Contents, *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True, show_edge=False)
    table.add_column("network\n", no_wrap=True)
    quality = Quality.of(contents)
    headers = [f"post-training\n{quality.title}", f"recovered\n{quality.title}", "\nMACs"]
    headers += ["\nparameters", "file\nsafetensors"] if wide else []
    headers += ["theoretical\nspeedup", *(f"{name.removesuffix(' Runtime')}\nspeedup" for name in RUNTIMES.values())]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for network in contents.networks:
        cells = _cells(network, contents.network("dense"), quality, wide=wide)
        table.add_row(*cells, style=STYLES[network.name])
    return table


def _cells(network: NetworkReport, dense: NetworkReport | None, quality: Quality, *, wide: bool) -> list[str]:
    mark = " ←" if network.chosen else ""
    cells = [
        escape(network.title if wide else network.name) + mark,
        quality.text(network.post_training),
        quality.text(network.recovered),
        percent(share(network, dense, "macs")),
    ]
    if wide:
        cells += [percent(share(network, dense, "params")), size(network.files.get("safetensors"))]
    cells.append(times(theoretical_speedup(network, dense)))
    for runtime in RUNTIMES:
        factor = times(speedup(network, dense, runtime))
        cells.append(f"{milliseconds(median(network, runtime))}  {factor:>6}" if wide else factor)
    return cells


def _measures(contents: Contents) -> Table:
    measures = measure_table(contents.networks)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("", no_wrap=True)
    for _, name in measures.columns:
        chosen = contents.chosen is not None and contents.chosen.name == name
        table.add_column(f"{name} ←" if chosen else name, justify="right", no_wrap=True, style=STYLES[name])
    for row in measures.rows:
        table.add_row(escape(row.label), *(escape(cell.text) for cell in row.cells))
    return table
