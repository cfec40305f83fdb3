"""A run's report: one HTML file that opens offline, from the run folder's files only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from autoprune.report import wording
from autoprune.report.contents import Contents, Network, read_contents
from autoprune.report.drawing import COLOURS, NARROW
from autoprune.report.figures import figures
from autoprune.report.wording import DASH, RUNTIMES, difference, percent
from autoprune.runs import RunFolder

REPORT = "report.html"
TEMPLATE = "page.html.jinja"
FILES = {"safetensors": "safetensors", "onnx": "ONNX"}
STAGES = {
    "load": "loading",
    "baselines": "baselines",
    "search": "search",
    "recover": "recovery",
    "export": "measuring and export",
}


def write_report(folder: RunFolder) -> Path:
    """Writes report.html into the run folder and returns its path. An unfinished run gets what there is of it."""
    folder.write_text(REPORT, render(read_contents(folder)))
    return folder.path / REPORT


def render(contents: Contents) -> str:
    """The page as text. All that comes from files is escaped; only our own drawings are taken as they are."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = figures(contents)
    return environment.get_template(TEMPLATE).render(
        contents=contents,
        name=contents.run.get("name") or contents.run.get("task") or "run",
        headline=wording.headline(contents),
        choice=wording.choice(contents),
        quality=[_quality(network, contents.network("dense")) for network in contents.networks],
        expense=[_expense(network, contents.network("dense")) for network in contents.networks],
        runtimes=list(RUNTIMES.values()),
        pictures=[(picture, Markup(picture.wide), Markup(picture.narrow)) for picture in pictures],
        facts=_facts(contents),
        unprunable=contents.structure.get("unprunable") or {},
        colours=COLOURS,
        narrow_px=NARROW,
    )


def _quality(network: Network, dense: Network | None) -> dict[str, Any]:
    """The row of the accuracy table; the two regimes stay apart."""
    reference = dense.post_training.get("accuracy") if dense else None
    regimes = []
    for regime, metrics in (("post-training", network.post_training), ("recovered", network.recovered)):
        accuracy = metrics.get("accuracy")
        regimes.append(
            {
                "regime": regime,
                "accuracy": percent(accuracy),
                "difference": DASH if network is dense else wording.points(difference(accuracy, reference)),
                "loss": wording.number(metrics.get("loss")),
            }
        )
    held_out = {
        "accuracy": percent(network.held_out.get("accuracy")),
        "kl": wording.number(network.held_out.get("kl")),
    }
    return {"network": network, "regimes": regimes, "held_out": held_out}


def _expense(network: Network, dense: Network | None) -> dict[str, Any]:
    """The row of the table of costs and speed."""
    costs = []
    for cost, title in wording.COSTS.items():
        value = network.cost.get(cost)
        shown = wording.size(value) if cost == "bytes" else wording.count(value)
        costs.append((title, shown, percent(wording.share(network, dense, cost))))
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
    run, budget = contents.run, contents.budget
    evaluations = (contents.result or {}).get("evaluations") or {}
    seconds = (contents.result or {}).get("seconds") or {}
    machine = run.get("machine") or {}
    facts = [
        (title, str(run.get(key, DASH))) for key, title in (("task", "Task"), ("agent", "Agent"), ("seed", "Seed"))
    ]
    facts.append(("Budget", _budget_in_words(contents) if budget else DASH))
    if evaluations:
        facts.append(("Evaluations", f"{evaluations['spent']} spent of {evaluations['limit']}"))
    if seconds:
        stages = [
            f"{STAGES.get(stage, stage)} {wording.duration(value)}"
            for stage, value in seconds.items()
            if stage != "total"
        ]
        facts.append(("Time", f"{wording.duration(seconds.get('total'))} in all: {', '.join(stages)}"))
    facts.append(("Started", str(run.get("started", DASH))))
    if run.get("command"):
        facts.append(("Launched as", str(run["command"])))
    facts.append(
        ("Machine", ", ".join(f"{key}: {value}" for key, value in machine.items() if value is not None) or DASH)
    )
    facts.append(
        ("Versions", ", ".join(f"{package} {v}" for package, v in (run.get("versions") or {}).items()) or DASH)
    )
    facts += [(f"Data, {role}", str(digest)) for role, digest in (run.get("data") or {}).items()]
    return facts


def _budget_in_words(contents: Contents) -> str:
    budget, chosen = contents.budget, contents.chosen
    unit, limit = budget.get("unit", ""), budget.get("limit")
    text = f"{budget.get('text')}: at most {limit:,.0f} {unit}" if limit is not None else str(budget.get("text"))
    if budget.get("relative") is not None:
        text += f" ({percent(budget['relative'], digits=2)} of dense)"
    used = chosen.cost.get(budget.get("cost")) if chosen else None
    if used is not None:
        text += f"; the chosen plan uses {used:,.0f}"
        if limit:
            text += f", {percent(used / limit, digits=2)} of the budget"
    return text
