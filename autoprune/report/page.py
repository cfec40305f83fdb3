"""A run's report: one HTML file that opens offline, from the run folder's files only."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoprune.cost.cost_units import written
from autoprune.report import wording
from autoprune.report.contents import Contents, NetworkReport, read_contents
from autoprune.report.drawing import COLOURS, NARROW
from autoprune.report.figures import figures
from autoprune.report.measures import measured, rows, samples
from autoprune.report.template import filled
from autoprune.report.wording import DASH, RUNTIMES, percent
from autoprune.runs import RunFolder

REPORT = "report.html"
TEMPLATE = "page.html.jinja"
FILES = {"safetensors": "safetensors", "onnx": "ONNX"}
STAGES = {"load": "loading", "recover": "recovery", "export": "measuring and export"}


def write_report(folder: RunFolder) -> Path:
    """Writes report.html into the run folder and returns its path. An unfinished run gets what there is of it."""
    folder.write_text(REPORT, render(read_contents(folder)))
    return folder.path / REPORT


def render(contents: Contents) -> str:
    """The page as text. All that comes from files is escaped; only our own drawings are taken as they are."""
    pictures, found, quality = figures(contents), measured(contents.networks), wording.Quality.of(contents)
    return filled(
        TEMPLATE,
        contents=contents,
        name=contents.run.get("name") or contents.run.get("task") or "run",
        headline=wording.headline(contents),
        choice=wording.choice(contents),
        on_device=wording.on_device(contents),
        without_kernel=wording.without_kernel(contents),
        quality=[_quality(network, contents.network("dense"), quality) for network in contents.networks],
        quality_title=quality.title,
        costs=[wording.title(cost) for cost in wording.costs(contents)],
        expense=[_expense(network, contents) for network in contents.networks],
        runtimes=list(RUNTIMES.values()),
        measured=found,
        measures=rows(found),
        samples=samples(found),
        pictures=[(picture, Markup(picture.wide), Markup(picture.narrow)) for picture in pictures],
        facts=_facts(contents),
        unprunable=contents.structure.get("unprunable") or {},
        colours=COLOURS,
        narrow_px=NARROW,
    )


def _quality(network: NetworkReport, dense: NetworkReport | None, quality: wording.Quality) -> dict[str, Any]:
    """The row of the table of quality; the two regimes stay apart."""
    reference = dense.post_training if dense else {}
    regimes = []
    for regime, metrics in (("post-training", network.post_training), ("recovered", network.recovered)):
        regimes.append(
            {
                "regime": regime,
                "quality": quality.text(metrics),
                "difference": DASH if network is dense else quality.difference(metrics, reference),
                "loss": wording.number(metrics.get("loss")),
            }
        )
    held_out = {
        "quality": quality.text(network.held_out),
        "kl": wording.number(network.held_out.get("kl")),
    }
    return {"network": network, "regimes": regimes, "held_out": held_out}


def _expense(network: NetworkReport, contents: Contents) -> dict[str, Any]:
    """The row of the table of costs and speed."""
    dense, costs = contents.network("dense"), []
    for cost, unit in wording.costs(contents).items():
        shown = wording.amount(network.cost.get(cost), unit)
        costs.append((wording.title(cost), shown, percent(wording.share(network, dense, cost))))
    latency = []
    for runtime, shown_as in RUNTIMES.items():
        spread: Mapping[str, Any] = network.latency.get(runtime) or {}
        quartiles = f"{wording.milliseconds(spread.get('low'))} to {wording.milliseconds(spread.get('high'))}"
        factor = wording.times(wording.speedup(network, dense, runtime))
        latency.append((shown_as, factor, wording.milliseconds(spread.get("median")), quartiles))
    return {
        "network": network,
        "costs": costs,
        "files": [(title, wording.size(network.files.get(kind))) for kind, title in FILES.items()],
        "theoretical": wording.times(wording.theoretical_speedup(network, dense)),
        "latency": latency,
    }


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """What was run, where, and with what."""
    run, result = contents.run, contents.result or {}
    facts = [(title, str(run.get(title.lower(), DASH))) for title in ("Task", "Agent", "Seed")]
    facts.append(("Budget", _budget_in_words(contents)))
    if evaluations := result.get("evaluations"):
        facts.append(("Evaluations", f"{evaluations['spent']} spent of {evaluations['limit']}"))
    if seconds := result.get("seconds"):
        stages = {STAGES.get(s, s): wording.duration(value) for s, value in seconds.items() if s != "total"}
        facts.append(("Time", f"{wording.duration(seconds.get('total'))} in all: {_listed(stages)}"))
    facts.append(("Started", str(run.get("started", DASH))))
    if "overrides" in run:
        facts.append(("Launched as", shlex.join(["autoprune", "search", *map(str, run["overrides"])])))
    facts.append(("Machine", _listed(run.get("machine"))))
    facts.append(("Versions", _listed(run.get("versions"))))
    return facts + [(f"Data, {role}", str(digest)) for role, digest in (run.get("data") or {}).items()]


def _listed(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items() if value is not None) or DASH


def _budget_in_words(contents: Contents) -> str:
    """Every budget as it was written, what it comes to, and what the chosen plan uses of it."""
    return ". ".join(_bound_in_words(bound, contents.chosen) for bound in contents.bounds) or DASH


def _bound_in_words(bound: Mapping[str, Any], chosen: NetworkReport | None) -> str:
    limit = float(bound["limit"])
    share = percent(bound["relative"], digits=2)
    text = f"{bound['text']}: at most {written(limit)} {bound['unit']} ({share} of dense)"
    used = chosen.cost.get(bound["cost"]) if chosen else None
    if used is None:
        return text
    return f"{text}; the chosen plan uses {written(used)}, {percent(used / limit, digits=2)} of it"
