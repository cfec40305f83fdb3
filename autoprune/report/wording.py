"""Numbers and results in words, the same in the terminal and on the page. What was not measured is a dash."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from autoprune.cost.cost_units import JOULES, SECONDS

if TYPE_CHECKING:  # importing what runs hold takes seconds, and the first word of a command is said with this
    from autoprune.report.contents import Contents, NetworkReport

FASTER = 1.05  # speedups below this are none
ODD_WIDTHS = "odd widths are slow: set structure.round_to=auto, "
NOT_FASTER = "a lower budget, or budget=latency:… with a device"  # what helps, whatever the widths
DASH = "–"
GAP = "\u00a0"  # keeps a number and its unit on one line
COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes"}
TITLES = COSTS | {
    "weight_bytes": "weight bytes",
    "peak_memory": "peak memory",
    "kv_cache": "KV cache",
    "decode": "time per token",
}
CLASSIFIER = {"kind": "classification", "metric": "accuracy", "percent": True}  # what runs before 0.2 were
RUNTIMES = {"torch": "torch", "onnxruntime": "ONNX Runtime"}


def percent(fraction: float | None, *, digits: int = 1) -> str:
    return DASH if fraction is None else f"{100 * fraction:.{digits}f}{GAP}%"


def points(difference: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return DASH if difference is None else number(100 * difference, digits=1, plus=True)


def number(value: float | None, *, digits: int = 3, plus: bool = False) -> str:
    """With a minus that is one, and where asked for with a plus; what rounds to zero has no sign.

    Args:
        value: The number; None where there is none.
        digits: Digits after the point.
        plus: Whether a positive number gets its sign.
    """
    if value is None:
        return DASH
    text = f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def count(value: float | None) -> str:
    """1234567 → 1.23 M."""
    if value is None:
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return (f"{scaled:.3g}" if abs(scaled) < 999.5 else f"{scaled:,.0f}") + GAP + suffix
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """1234567 bytes → 1.23 MB."""
    return DASH if value is None else count(value) + ("B" if abs(value) >= 1e3 else f"{GAP}B")


def amount(value: float | None, unit: str) -> str:
    """A cost in its unit: bytes, a count, or what is written with its unit, such as 0.123 ms.

    Args:
        value: The number; None where there is none.
        unit: Of the cost: bytes, count, ms, mJ, …
    """
    if unit == "bytes":
        return size(value)
    if value is None or not (unit in SECONDS or unit in JOULES):
        return count(value)
    return f"{value:.3g}{GAP}{unit}"


def title(cost: str) -> str:
    return TITLES.get(cost, cost)


def costs(contents: "Contents") -> dict[str, str]:
    """The costs that tables show, with their units: those of every run, and what a budget bounds."""
    return {cost: "bytes" if cost == "bytes" else "count" for cost in COSTS} | {
        bound["cost"]: bound["unit"] for bound in contents.bounds
    }


def times(factor: float | None) -> str:
    return DASH if factor is None else f"{factor:.2f}×"


def milliseconds(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}{GAP}ms"


def duration(seconds: float | None) -> str:
    """75 → 1 min 15 s."""
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def preparation(seconds: Mapping[str, float]) -> str:
    """12.3 s (structure 4.1 s, ranking 0.2 s, …): how long the steps before the search took."""
    steps = pairs({step: duration(value) for step, value in seconds.items()})
    return f"{duration(sum(seconds.values()))} ({steps})"


def quotient(top: float | None, bottom: float | None) -> float | None:
    return top / bottom if top is not None and bottom else None


def share(network: "NetworkReport", dense: "NetworkReport | None", cost: str) -> float | None:
    """The cost as a fraction of the dense network's.

    Args:
        network: What the report says of the network.
        dense: What the report says of the dense network.
        cost: The cost's name.
    """
    return quotient(network.cost.get(cost), dense.cost.get(cost) if dense else None)


def theoretical_speedup(network: "NetworkReport", dense: "NetworkReport | None") -> float | None:
    """Dense ÷ pruned MACs: what counting promises.

    Args:
        network: What the report says of the network.
        dense: What the report says of the dense network.
    """
    return quotient(dense.cost.get("macs") if dense else None, network.cost.get("macs"))


def speedup(network: "NetworkReport", dense: "NetworkReport | None", runtime: str) -> float | None:
    """Dense ÷ pruned median latency: what was measured.

    Args:
        network: What the report says of the network.
        dense: What the report says of the dense network.
        runtime: "torch" or "onnxruntime".
    """
    return quotient(median(dense, runtime) if dense else None, median(network, runtime))


def median(network: "NetworkReport", runtime: str) -> float | None:
    value: Mapping[str, Any] = network.latency.get(runtime) or {}
    return value.get("median")


def without_kernel(contents: "Contents") -> str:
    """What MACs promise of attentions that see fewer blocks of keys; empty where no network has one."""
    blocks = {g["name"] for g in contents.structure.get("groups", ()) if g.get("granularity") == "key_block"}
    narrowed = [n.name for n in contents.networks if any(n.density.get(name, 1.0) < 1 for name in blocks)]
    if not narrowed:
        return ""
    return (
        f"Some attentions see fewer blocks of keys ({', '.join(narrowed)}), and MACs count what a block-sparse kernel "
        "would compute: there is no speedup here without such a kernel, as these networks compute all and mask."
    )


def on_the_disk(contents: "Contents") -> str:
    """How large the chosen network's files are where weights are zero or share values; empty for others."""
    chosen, dense = contents.chosen, contents.network("dense")
    coded = None if chosen is None else chosen.files.get("apz") or chosen.files.get("apz_predicted")
    if chosen is None or dense is None or not coded:
        return ""
    stored, whole = chosen.files.get("safetensors"), dense.files.get("safetensors")
    about = "" if chosen.files.get("apz") else "about "
    text = (
        f"On the disk: {about}{size(coded)} as .apz, {times(quotient(whole, coded))} smaller than the dense network's "
        f"safetensors ({size(whole)}). Its own safetensors file stores the zeros and has {size(stored)}; "
        "`autoprune export RUN format=apz` writes the small one."
    )
    return text + _against_budget(contents, chosen, coded) + _bits_of_codes(contents, chosen)


def _against_budget(contents: "Contents", chosen: "NetworkReport", coded: float) -> str:
    """Whether the file is within a budget of encoded bytes, which bounds what was predicted of the plan."""
    bound = next((bound for bound in contents.bounds if bound["cost"] == "encoded_bytes"), None)
    if bound is None:
        return ""
    limit, removed = float(bound["limit"]), (chosen.file_limit or {}).get("removed", 0)
    if coded > limit:
        return f" Its budget of {size(limit)} is missed by {percent(coded / limit - 1, digits=2)}."
    beside = f", for which {removed:,} of its smallest weights went beside those of the plan" if removed else ""
    return f" Its budget of {size(limit)} is met{beside}."


def _bits_of_codes(contents: "Contents", chosen: "NetworkReport") -> str:
    """The bits that the plan gives to the codes of every matrix's weights; empty where it does not decide on them."""
    groups = [group for group in contents.structure.get("groups", ()) if group.get("granularity") == "bit"]
    bits = [(group["layers"][0], chosen.plan[group["name"]]["kept"], group["units"]) for group in groups]
    listed = [f"{name} {kept}" if kept < units else f"{name} none" for name, kept, units in bits]
    return f" Bits of the codes of weights: {', '.join(listed)}." if listed else ""


def on_device(contents: "Contents") -> str:
    """The chosen network's latency on the run's device, as it was predicted and as it was measured; empty without."""
    device, chosen = (contents.result or {}).get("device"), contents.chosen
    if not device or chosen is None:
        return ""
    own, dense = device["latency_ms"][chosen.name], device["latency_ms"]["dense"]
    predicted = f"On {device['name']}: {milliseconds(own['predicted'])} predicted"
    if own["least"] is None:
        dense_predicted = milliseconds(dense["predicted"])
        return f"{predicted} (dense {dense_predicted}); the device is not at hand, so nothing was measured."
    factor = times(quotient(dense["least"], own["least"]))
    return (
        f"{predicted}, {milliseconds(own['least'])} measured, with a median of {milliseconds(own['median'])}; dense "
        f"{milliseconds(dense['predicted'])} and {milliseconds(dense['least'])}: a measured speedup of {factor}."
    )


def level_steps(groups: Sequence[Mapping[str, Any]]) -> str:
    """By how many units the levels of groups go, such as `of 4 units in 7 groups, of 8 in 12`; empty of no groups.

    Args:
        groups: Those of structure.json. A group counts by the least difference of its levels.
    """
    steps = Counter(min((b - a for a, b in pairwise(group.get("levels", ()))), default=0) for group in groups)
    parts = [(step, n) for step, n in sorted(steps.items()) if step]
    if not parts:
        return ""
    (step, n), *others = parts
    first = f"of {counted(step, 'unit')} in {counted(n, 'group')}"
    return ", ".join([first, *(f"of {step:,} in {n:,}" for step, n in others)])


def drawn_metric(contents: "Contents") -> str:
    """What figures draw, a fraction in [0, 1]: accuracy, or agreement with the dense network for other metrics."""
    judged: Mapping[str, Any] = contents.run.get("judged") or CLASSIFIER
    return "accuracy" if judged["percent"] else "agreement"


@dataclass(frozen=True, slots=True)
class Quality:
    """What a run's tables and sentences say of how good a network is."""

    title: str
    """Accuracy, the metric's own name, perplexity, or agreement with the dense network where nothing is labelled."""
    metric: str
    """The metric of result.json that it is read from."""
    is_percent: bool
    """It is a fraction that is written in percent."""

    @classmethod
    def of(cls, contents: "Contents") -> "Quality":
        judged: Mapping[str, Any] = contents.run.get("judged") or CLASSIFIER
        if judged["metric"] is None:
            return cls("agreement", "agreement", is_percent=True)
        if judged["kind"] == "language" and judged["metric"] == "accuracy":
            return cls("perplexity", "loss", is_percent=False)
        return cls(str(judged["metric"]), "accuracy", is_percent=bool(judged["percent"]))

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """The number; None where it was not measured."""
        value = metrics.get(self.metric)
        return math.exp(min(value, 700.0)) if self.title == "perplexity" and value is not None else value

    def text(self, metrics: Mapping[str, Any]) -> str:
        """The number as a table has it."""
        return percent(self.value(metrics)) if self.is_percent else number(self.value(metrics))

    def difference(self, metrics: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
        """How it differs from another network's, in percentage points where it is a percentage.

        Args:
            metrics: What was measured on the samples.
            reference: What it is compared with.
        """
        ours, theirs = self.value(metrics), self.value(reference)
        apart = None if ours is None or theirs is None else ours - theirs
        return points(apart) if self.is_percent else number(apart)

    def sentence(self, metrics: Mapping[str, Any]) -> str:
        """The number with its name: 91.2 % accuracy, R² 0.931."""
        return f"{self.text(metrics)} {self.title}" if self.is_percent else f"{self.title} {self.text(metrics)}"


def headline(contents: "Contents") -> str:
    """The chosen network in one sentence."""
    network, dense = contents.chosen, contents.network("dense")
    if contents.result is None or network is None:
        return unfinished(contents)
    bounded = [bound["cost"] for bound in contents.bounds] or ["macs"]
    parts = [" and ".join(f"{percent(share(network, dense, cost))} of the {title(cost)}" for cost in bounded)]
    factor, runtime = speedup(network, dense, "onnxruntime"), "onnxruntime"
    if factor is None:
        factor, runtime = speedup(network, dense, "torch"), "torch"
    if factor is not None:
        odd = contents.structure.get("round_to", 1) == 1
        advice = "" if factor >= FASTER else f" ({ODD_WIDTHS if odd else 'set '}{NOT_FASTER})"
        parts.append(f"{_pace(factor)} in {RUNTIMES[runtime]}{advice}")
    quality = Quality.of(contents)
    recovered = quality.value(network.recovered) is not None and network.harmed is None
    sentence = quality.sentence(network.recovered if recovered else network.post_training)
    reference = quality.text(dense.post_training if dense else {})
    parts.append(f"{sentence} {'after recovery' if recovered else 'without recovery'} (dense {reference})")
    if network.harmed is not None:
        parts.append("recovery made it worse and was left out")
    if (contents.result.get("policy") or {}).get("worse_than_uniform"):
        parts.append("the policy's own plan is worse than uniform")
    return ", ".join(parts)


def _pace(factor: float) -> str:
    if 0.95 < factor < FASTER:
        return "no faster"
    return f"{factor:.1f}× faster" if factor > 1 else f"{1 / factor:.1f}× slower"


def unfinished(contents: "Contents") -> str:
    """How far a run without a result has come."""
    spent = sum(record["phase"] != "baseline" for record in contents.history)
    best = contents.best
    if best is None:
        return f"This run has not finished: {spent} evaluations are here, and no plan inside the budget yet"
    return (
        f"This run has not finished: {spent} evaluations are here; the best plan so far has the score "
        f"{number(best['score'])} and {Quality.of(contents).sentence(best)} on the search data before recovery"
    )


def choice(contents: "Contents") -> str:
    """Which plan was chosen, and why."""
    chosen, searched = contents.chosen, contents.network("searched")
    if chosen is None:
        return ""
    if searched is not None and searched.same_as and chosen.name in (searched.name, searched.same_as):
        which = f"The search ended on the {searched.same_as} plan itself."
    elif chosen.name == "searched":
        which = "The search's own plan was chosen."
    else:
        which = f"The {chosen.name} plan was chosen: the search's own plan did not beat this baseline."
    return f"{which} The choice is made on search data that no reward has seen, never on the test data."


def counted(amount: float, noun: str) -> str:
    """1 unit, 2 units: a number with its noun.

    Args:
        amount: How many.
        noun: In the singular; an s makes its plural.
    """
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def origin(run: Mapping[str, Any], *, command: str) -> list[tuple[str, str]]:
    """When, by which command and on which machine a run.json was made, and of which data: terms and texts.

    Args:
        run: What run.json holds.
        command: As a person types it, without autoprune, such as search.
    """
    facts = [("Started", str(run.get("started", DASH)))]
    if "overrides" in run:
        facts.append(("Launched as", shlex.join(["autoprune", command, *map(str, run["overrides"])])))
    facts += [("Commit", str(run["commit"]))] if run.get("commit") else []
    facts += [(term, pairs(run.get(term.lower()))) for term in ("Machine", "Versions")]
    return facts + [(f"Data, {role}", str(digest)) for role, digest in (run.get("data") or {}).items()]


def pairs(values: Mapping[str, Any] | None) -> str:
    """load 2.1 s, search 104 s; what is None is left out."""
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items() if value is not None) or DASH
