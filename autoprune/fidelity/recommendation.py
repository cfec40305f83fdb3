"""Which repair and score a task should be searched with, by what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.fidelity.rank_agreement import SeedNoise, better_half
from autoprune.seeding import numpy_rng
from autoprune.statistics import Estimate, Floats, correlation_estimate, kendall, resampled_counts

BAR = 0.7  # Kendall's τ with recovered accuracy that a default should reach
SAME_COST = 1.1  # costs closer than this factor are one cost: a measured time is no finer

Choice = tuple[str, str]  # repair, score


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The repair and score to search with."""

    repair: str
    """Its name."""
    score: str
    """Its name."""
    tau: Estimate
    """Kendall's τ with recovered accuracy over all plans."""
    tau_top: Estimate
    """The same over the better half."""
    tied: tuple[Choice, ...]
    """As good within the standard error, itself included."""
    rule: str
    """What decided: "best", "cheaper", "default", or "kept" where the plans themselves cannot be told apart."""
    reaches: bool | None
    """Whether τ is at least BAR; None where nothing can rank the plans."""


def recommend(
    proxies: Mapping[Choice, Floats], truth: Floats, *, seconds: Mapping[str, float], noise: SeedNoise, default: Choice
) -> Recommendation:
    """The choice with the highest τ; among those within one standard error of it the cheapest, then the default.

    The standard error is of the difference between two choices' τ, over plans resampled in pairs.

    Args:
        proxies: Choice → [plans], higher is better.
        truth: [plans], higher is better.
        seconds: Repair → of one evaluation.
        noise: Of the truth's seeds.
        default: One of the choices.
    """
    rule, reaches, tied, chosen = "kept", None, [], default
    if noise.differ:
        counts = resampled_counts(len(truth), rng=_rng())
        # A constant proxy ranks nothing: its τ is worth 0 here.
        tau = {choice: float(np.nan_to_num(kendall(x, truth)[0])) for choice, x in proxies.items()}
        drawn = {choice: np.nan_to_num(kendall(x, truth, counts)) for choice, x in proxies.items()}
        best = max(tau, key=lambda choice: tau[choice])
        tied = [c for c in tau if tau[best] - tau[c] <= float(np.std(drawn[best] - drawn[c], ddof=1))]
        least = min(seconds[repair] for repair, _ in tied)
        cheap = [choice for choice in tied if seconds[choice[0]] <= SAME_COST * least]
        chosen = default if default in cheap else max(cheap, key=lambda choice: tau[choice])
        rule = "best" if chosen == best else "default" if chosen == default else "cheaper"
        reaches = tau[chosen] >= BAR
    x, top = proxies[chosen], better_half(truth)
    return Recommendation(
        *chosen,
        tau=correlation_estimate(kendall, x, truth, rng=_rng()),
        tau_top=correlation_estimate(kendall, x[top], truth[top], rng=_rng()),
        tied=tuple(tied),
        rule=rule,
        reaches=reaches,
    )


def _rng() -> np.random.Generator:
    """The same draws for every choice, so that they are compared on the same plans."""
    return numpy_rng(0, "fidelity/bootstrap")
