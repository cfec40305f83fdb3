"""A comparison in words: who is best, and a plain sentence for every two agents."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.comparison.caveats import listed
from autoprune.report.wording import DASH

Json = Mapping[str, Any]
REGIMES = {"post_training": "post-training", "recovered": "recovered"}
FLIPPED = {"better": "worse", "worse": "better"}
FEW = 4  # names in a row


def headline(result: Json) -> str:
    """Who finds the best plans before recovery, or who makes the best networks after it where nothing else is known."""
    regime = "post_training" if agents_of(result, "post_training") else "recovered"
    return _leaders(result, regime)


def second_line(result: Json) -> str:
    """What recovery leaves of it; empty where nothing was recovered."""
    if not agents_of(result, "recovered"):
        return "Nothing was recovered, so this says nothing about networks that are trained on after pruning."
    return f"Recovered: {_leaders(result, 'recovered')}."


def agents_of(result: Json, regime: str) -> list[Json]:
    """The ranked agents of a regime, best first."""
    found = result[regime]
    return [agent for agent in found["agents"] if agent["ranked"]] if found else []


def seeds_of(result: Json, labels: Sequence[str], regime: str) -> str:
    """How many seeds these agents have: a number, or a range."""
    counts = [c["seeds"] for a in result[regime]["agents"] if a["label"] in labels for c in a["cells"]]
    low, high = min(counts), max(counts)
    return f"{low} seeds" if low == high else f"{low} to {high} seeds"


def pair_sentence(result: Json, pair: Json, regime: str, *, of: str | None = None) -> str:
    """What can be said of two agents over all tasks and budgets; of: whose sentence it is, the better ranked one's."""
    turned = of is not None and of != pair["a"]
    first, second = (pair["b"], pair["a"]) if turned else (pair["a"], pair["b"])
    said, difference, chance = pair["verdict"], pair["difference"], pair["improvement"]
    if turned:
        said, difference, chance = FLIPPED.get(said, said), _minus(difference), _of_one(chance)
    return (
        f"{first} {_verb(said)} {second} at {seeds_of(result, (first, second), regime)}: "
        f"{gain(difference, regime)}, P(better) {probability(chance)}"
    )


def cell_phrases(pair: Json, regime: str) -> list[str]:
    """The same for each task and budget."""
    return [
        f"{cell['cell'][0]} at {cell['cell'][1]}: {_briefly(cell['verdict'])} ({gain(cell['difference'], regime)})"
        for cell in pair["cells"]
    ]


def against_all(result: Json, regime: str) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """agent → [(verdict, the agents it is that to)], best ranked first."""
    pairs, found = result[regime]["pairs"], []
    for agent in agents_of(result, regime):
        name, groups = agent["label"], {}
        for verdict in ("better", "no difference", "too few seeds", "worse"):
            others = [p["b"] for p in pairs if p["a"] == name and p["verdict"] == verdict]
            others += [p["a"] for p in pairs if p["b"] == name and FLIPPED.get(p["verdict"], p["verdict"]) == verdict]
            if others:
                groups[verdict] = others
        found.append((name, list(groups.items())))
    return found


def agent_sentence(groups: Sequence[tuple[str, Sequence[str]]], *, most: int | None = None) -> str:
    """As in: better than a and b; no different from c. most: names that are listed each time."""
    words = {
        "better": "better than",
        "worse": "worse than",
        "no difference": "no different from",
        "too few seeds": "not to be told, by so few seeds, from",
    }
    return "; ".join(f"{words[verdict]} {listed(names, most=most)}" for verdict, names in groups)


def scale_sentence(cell: Json) -> str:
    """What 0 and 1 are on the scale of one task and budget."""
    task, budget = cell["cell"]
    best = cell["best"] if cell["best"] == "the optimum" else f"the best plan known, found by {cell['best']}"
    return f"{task} at {budget}: 0 is {signed(cell['zero'], 3)} (uniform), 1 is {signed(cell['one'], 3)} ({best})"


def gain(difference: Json, regime: str) -> str:
    """+0.10 [+0.05, +0.15], or in points."""
    digits, unit = (2, "") if regime == "post_training" else (2, " points")
    value, low, high = (signed(difference[key], digits, plus=True) for key in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def interval(estimate: Json | None, regime: str) -> str:
    """0.91 [0.89, 0.94]."""
    if estimate is None:
        return DASH
    plus = regime == "recovered"
    value, low, high = (signed(estimate[key], 2, plus=plus) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def probability(chance: Json) -> str:
    return f"{chance['value']:.2f} [{chance['low']:.2f}, {chance['high']:.2f}]"


def signed(value: float, digits: int, *, plus: bool = False) -> str:
    """With a minus that is one; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _leaders(result: Json, regime: str) -> str:
    """The best, those that cannot be told from it, and what they have in common against the others."""
    agents, found = agents_of(result, regime), result[regime]
    if not agents:
        return "Nothing can be ranked"
    top = agents[0]["label"]
    untold = [p["b"] for p in found["pairs"] if p["a"] == top and p["verdict"] != "better"]
    score = interval(agents[0]["iqm"], regime)
    what = f"a score of {score}" if regime == "post_training" else f"{score} points of accuracy above uniform"
    seeds = seeds_of(result, [agent["label"] for agent in agents], regime)
    if len(agents) == 1:
        return f"{top} has {what}; there is nothing to compare it with"
    if not untold:
        return f"{top} is better than {_others(len(agents) - 1)}, with {what} at {seeds}"
    if len(untold) == len(agents) - 1:
        return f"No difference between {top} and {listed(untold, most=FEW)} can be shown at {seeds}"
    rest = len(agents) - 1 - len(untold)
    untold_from = f"at {seeds} it cannot be told from {listed(untold, most=FEW)}"
    return f"{top} leads with {what}; {untold_from}, and it is better than {_others(rest)}"


def _others(count: int) -> str:
    return "the other one" if count == 1 else f"the other {count}"


def _verb(verdict: str) -> str:
    return {
        "better": "is better than",
        "worse": "is worse than",
        "no difference": "is no different from",
        "too few seeds": "cannot be told from",
    }[verdict]


def _briefly(verdict: str) -> str:
    return "too few seeds to tell" if verdict == "too few seeds" else verdict


def _minus(estimate: Json) -> Json:
    return {"value": -estimate["value"], "low": -estimate["high"], "high": -estimate["low"]}


def _of_one(estimate: Json) -> Json:
    return {"value": 1 - estimate["value"], "low": 1 - estimate["high"], "high": 1 - estimate["low"]}
