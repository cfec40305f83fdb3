"""A run's report: one HTML file that opens offline, from the run folder's files only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.cost.cost_units import written
from autoprune.report import run_facts, wording
from autoprune.report.contents import Contents, NetworkReport, read_contents
from autoprune.report.measures import measure_table, samples
from autoprune.report.on_disk import layer_table
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.run_figures import run_figures
from autoprune.report.template import page
from autoprune.report.wording import DASH, RUNTIMES, percent
from autoprune.runs import RunFolder

REPORT = "report.html"
FILES = {"safetensors": "safetensors", "onnx": "ONNX"}  # of every network
CODED = {"apz": "apz", "apz_predicted": "apz, predicted"}  # where weights are zero or share values
LEAD = (wording.choice, run_facts.harmed, wording.on_device, wording.without_kernel, wording.on_the_disk)
STAGES = {"load": "loading", "recover": "recovery", "benchmark": "measuring"}


def write_report(folder: RunFolder) -> Path:
    """`report.html` stands in the run folder; of an unfinished run it shows what there is. Returns its path."""
    folder.write_text(REPORT, render(read_contents(folder)))
    return folder.path / REPORT


def render(contents: Contents) -> str:
    """The page as text."""
    name = contents.run.get("name") or contents.run.get("task") or "run"
    unprunable = contents.structure.get("unprunable") or {}
    reasons = [Row(layer, [Cell(reason, style="words")]) for layer, reason in unprunable.items()]
    return page(
        "run_page.html.jinja",
        title=name,
        above=f"· {name}",
        headline=wording.headline(contents),
        lead=[sentence(contents) for sentence in LEAD],
        contents=contents,
        quality=_quality(contents),
        expense=_expense(contents),
        coded=layer_table((contents.result or {}).get("layers") or ()),
        measures=measure_table(contents.networks),
        samples=samples(contents.networks),
        pictures=run_figures(contents),
        facts=_facts(contents),
        unprunable=PageTable([("", "reason")], reasons, "wordy"),
    )


def _row(network: NetworkReport, cells: list[Cell]) -> Row:
    same = f"same plan as {network.same_as}" if network.same_as else ""
    badge = "chosen" if network.chosen else ""
    return Row(network.title, cells, colour=network.name, note=same, chosen=network.chosen, badge=badge)


def _quality(contents: Contents) -> PageTable:
    """How good networks are; the two regimes stay apart."""
    quality, dense, rows = wording.Quality.of(contents), contents.network("dense"), []
    titles = (quality.title, "to dense", "loss")
    columns = [(regime, title) for regime in ("Post-training", "Recovered") for title in titles]
    for network in contents.networks:
        cells = []
        for metrics in (network.post_training, network.recovered):
            gap = DASH if network is dense else quality.difference(metrics, dense.post_training if dense else {})
            cells += [Cell(quality.text(metrics), style="strong"), Cell(gap, style="extra")]
            cells.append(Cell(wording.number(metrics.get("loss")), style="extra"))
        unseen = quality.text(network.held_out), wording.number(network.held_out.get("kl"))
        rows.append(_row(network, [*cells, *map(Cell, unseen)]))
    return PageTable([*columns, *(("Unseen search data", title) for title in (quality.title, "KL to dense"))], rows)


def _expense(contents: Contents) -> PageTable:
    """Costs, files and speed."""
    costs = wording.costs(contents)
    written_kinds = {kind for network in contents.networks for kind in network.files}
    files = FILES | {kind: title for kind, title in CODED.items() if kind in written_kinds}
    columns = [("Cost", wording.title(cost)) for cost in costs] + [("File", kind) for kind in files.values()]
    columns += [("Theoretical", "speedup"), *(("Measured speedup", runtime) for runtime in RUNTIMES.values())]
    dense, rows = contents.network("dense"), []
    for network in contents.networks:
        cells = []
        for cost, unit in costs.items():
            amount = wording.amount(network.cost.get(cost), unit)
            share = percent(wording.share(network, dense, cost))
            cells.append(Cell(amount if network is dense else share, hover=amount))
        cells += [Cell(wording.size(network.files.get(kind))) for kind in files]
        cells.append(Cell(wording.times(wording.theoretical_speedup(network, dense))))
        for runtime in RUNTIMES:
            spread: Mapping[str, Any] = network.latency.get(runtime) or {}
            low, median, high = (wording.milliseconds(spread.get(key)) for key in ("low", "median", "high"))
            factor = wording.times(wording.speedup(network, dense, runtime))
            cells.append(Cell(factor, small=median, hover=f"quartiles {low} to {high}", style="strong"))
        rows.append(_row(network, cells))
    return PageTable(columns, rows)


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """What was run, where, and with what."""
    run, result = contents.run, contents.result or {}
    facts = [(term, str(run.get(term.lower(), DASH))) for term in ("Task", "Agent", "Seed")]
    facts.append(("Budget", ". ".join(_bound_in_words(bound, contents.chosen) for bound in contents.bounds) or DASH))
    if steps := wording.level_steps(contents.structure.get("groups") or ()):
        facts.append(("Levels", f"in steps {steps} (structure.round_to={contents.structure.get('round_to', 1)})"))
    if evaluations := result.get("evaluations"):
        facts.append(("Evaluations", run_facts.spent(evaluations)))
    if preparation := run.get("preparation_seconds"):
        facts.append(("Preparation", wording.preparation(preparation)))
    if seconds := result.get("seconds"):
        stages = {STAGES.get(s, s): wording.duration(value) for s, value in seconds.items() if s != "total"}
        expected = run_facts.planned(seconds, result.get("planned_seconds") or {})
        planned = f"; planned for these: {expected}" if expected else ""
        facts.append(("Time", f"{wording.duration(seconds.get('total'))} in all: {wording.pairs(stages)}{planned}"))
    return facts + wording.origin(run, command="search")


def _bound_in_words(bound: Mapping[str, Any], chosen: NetworkReport | None) -> str:
    """The budget as it was written, what it comes to, and what the chosen plan uses of it."""
    limit = float(bound["limit"])
    share = percent(bound["relative"], digits=2)
    text = f"{bound['text']}: at most {written(limit)} {bound['unit']} ({share} of dense)"
    used = chosen.cost.get(bound["cost"]) if chosen else None
    if used is None:
        return text
    return f"{text}; the chosen plan uses {written(used)}, {percent(used / limit, digits=2)} of it"
