"""A comparison in words: who is best, and a plain sentence for every two agents."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.comparison.caveats import listed
from autoprune.report.wording import DASH, number

Json = Mapping[str, Any]
REGIMES = {"post_training": "post-training", "recovered": "recovered"}
FLIPPED = {"better": "worse", "worse": "better"}
IS = {  # a verdict, after "is"
    "better": "better than",
    "no difference": "no different from",
    "too few seeds": "not to be told, at so few seeds, from",
    "worse": "worse than",
}
FEW = 4  # names in a row


def headline(result: Json) -> str:
    """Who finds the best plans before recovery, or who makes the best networks after it where nothing else is known."""
    return _leaders(result, main_regime(result))


def second_line(result: Json) -> str:
    """What recovery leaves of it."""
    if result.get("by") == "policy":
        return "These are the policies' own plans; by=search ranks the best plans that searches met."
    if not agents_of(result, "recovered"):
        return "Nothing was recovered, so this says nothing about networks that are trained on after pruning."
    return f"Recovered: {_leaders(result, 'recovered')}."


def agents_of(result: Json, regime: str) -> list[Json]:
    """The ranked agents of a regime, best first.

    Args:
        result: The comparison, as it is written down.
        regime: "post_training" or "recovered".
    """
    return [agent for agent in (result[regime] or {"agents": ()})["agents"] if agent["ranked"]]


def policy_score(result: Json, label: str) -> str:
    """What the agent's policy proposes by itself is worth, where 0 is the uniform plan; a dash where it has none.

    Args:
        result: The comparison, as it is written down.
        label: The agent.
    """
    agents = (result.get("policies") or {"agents": ()})["agents"]
    return next(
        (interval(agent["iqm"]) if agent["ranked"] else "one seed" for agent in agents if agent["label"] == label), DASH
    )


def main_regime(result: Json) -> str:
    """The one that the page begins with."""
    return "post_training" if agents_of(result, "post_training") else "recovered"


def at_seeds(result: Json, labels: Sequence[str], regime: str) -> str:
    """At how many seeds these agents were run, those aside that no seed changes.

    Args:
        result: The comparison, as it is written down.
        labels: The agents.
        regime: "post_training" or "recovered".
    """
    agents = [agent for agent in result[regime]["agents"] if agent["label"] in labels and not agent["deterministic"]]
    counts = [cell["seeds"] for agent in agents for cell in agent["cells"]]
    if not counts:
        return "whatever the seed"
    low, high = min(counts), max(counts)
    return f"at {low} seeds" if low == high else f"at {low} to {high} seeds"


def pair_sentence(result: Json, pair: Json, regime: str) -> str:
    """What can be said of two agents over all tasks and budgets.

    Args:
        result: The comparison, as it is written down.
        pair: Two agents, and what a comparison says of them.
        regime: "post_training" or "recovered".
    """
    return (
        f"{pair['a']} is {IS[pair['verdict']]} {pair['b']} {at_seeds(result, (pair['a'], pair['b']), regime)}: "
        f"{interval(pair['difference'], regime, plus=True)}, P(better) {interval(pair['improvement'])}"
    )


def cell_phrases(pair: Json, regime: str) -> list[str]:
    """The same for each task and budget.

    Args:
        pair: Two agents, and what a comparison says of them.
        regime: "post_training" or "recovered".
    """
    return [
        f"{' at '.join(cell['cell'])}: {cell['verdict']} ({interval(cell['difference'], regime, plus=True)})"
        for cell in pair["cells"]
    ]


def against_all(result: Json, regime: str) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """agent → [(verdict, the agents it is that to)], best ranked first.

    Args:
        result: The comparison, as it is written down.
        regime: "post_training" or "recovered".
    """
    pairs, agents = result[regime]["pairs"], []
    for name in (agent["label"] for agent in agents_of(result, regime)):
        others = [(pair["verdict"], pair["b"]) for pair in pairs if pair["a"] == name]
        others += [(FLIPPED.get(pair["verdict"], pair["verdict"]), pair["a"]) for pair in pairs if pair["b"] == name]
        groups = [(verdict, [other for v, other in others if v == verdict]) for verdict in IS]
        agents.append((name, [(verdict, names) for verdict, names in groups if names]))
    return agents


def agent_sentence(groups: Sequence[tuple[str, Sequence[str]]], *, most: int | None = None) -> str:
    """As in: better than a and b; no different from c.

    Args:
        groups: Verdicts, each with the agents that it is of.
        most: Names that are listed each time.
    """
    return "; ".join(f"{IS[verdict]} {listed(names, most=most)}" for verdict, names in groups)


def scale_sentence(cell: Json) -> str:
    """What 0 and 1 are on the scale of one task and budget."""
    best = cell["best"] if cell["best"] == "the optimum" else f"the best plan known, found by {cell['best']}"
    return f"{' at '.join(cell['cell'])}: 0 is {number(cell['zero'])} (uniform), 1 is {number(cell['one'])} ({best})"


def interval(estimate: Json | None, regime: str = "post_training", *, plus: bool = False, digits: int = 2) -> str:
    """0.91 [0.89, 0.94]; one number where no seed changes it; a difference is in points after recovery.

    Args:
        estimate: The estimate with its interval; None where there is none.
        regime: "post_training" or "recovered".
        plus: Whether a positive number gets its sign.
        digits: Digits after the point.
    """
    if estimate is None:
        return DASH
    plus, unit = plus or regime == "recovered", " points" if plus and regime == "recovered" else ""
    value, low, high = (number(estimate[key], digits=digits, plus=plus) for key in ("value", "low", "high"))
    return f"{value}{unit}" if estimate["low"] == estimate["high"] else f"{value}{unit} [{low}, {high}]"


def _leaders(result: Json, regime: str) -> str:
    """The best, those that cannot be told from it, and what they have in common against the others."""
    agents = agents_of(result, regime)
    if not agents:
        return "Nothing can be ranked"
    labels = [agent["label"] for agent in agents]
    top, others = labels[0], labels[1:]
    not_better = [pair["b"] for pair in result[regime]["pairs"] if pair["a"] == top and pair["verdict"] != "better"]
    score, seeds = interval(agents[0]["iqm"], regime), at_seeds(result, labels, regime)
    what = f"a score of {score}" if regime == "post_training" else f"{score} points of accuracy above uniform"
    if not others:
        return f"{top} has {what}; there is nothing to compare it with"
    if not not_better:
        return f"{top} is better than {_others(len(others))}, with {what} {seeds}"
    if len(not_better) == len(others):
        return f"No difference between {top} and {listed(not_better, most=FEW)} can be shown {seeds}"
    undecided = f"{seeds} it cannot be told from {listed(not_better, most=FEW)}"
    return f"{top} leads with {what}; {undecided}, and it is better than {_others(len(others) - len(not_better))}"


def _others(count: int) -> str:
    return "the other one" if count == 1 else f"the other {count}"
