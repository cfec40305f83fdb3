"""Which repair and score a task should be searched with, by what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.fidelity.rank_agreement import Floats, RankEstimate, SeedNoise, better_half, estimate, kendall, resamples
from autoprune.seeding import numpy_rng

BAR = 0.7  # Kendall's τ with recovered accuracy that a default should reach
SAME_COST = 1.1  # costs closer than this factor are one cost: a measured time is no finer

Choice = tuple[str, str]  # repair, score


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The repair and score to search with. tied: as good within the standard error; rule: what decided among them.

    rule is "best", "cheaper", "default" or "kept"; the last says that no proxy can be told from another, as the plans
    themselves cannot. reaches: τ is at least BAR; None where nothing can rank the plans.
    """

    repair: str
    score: str
    tau: RankEstimate
    tau_top: RankEstimate
    tied: tuple[Choice, ...]
    rule: str
    reaches: bool | None


def recommend(
    proxies: Mapping[Choice, Floats], truth: Floats, *, seconds: Mapping[str, float], chance: SeedNoise, default: Choice
) -> Recommendation:
    """The choice with the highest τ; among those within one standard error of it the cheapest, then the default.

    proxies: choice → [plans], truth [plans], both higher is better. The standard error is of the difference between two
    choices' τ, over plans resampled in pairs. seconds: of one evaluation, per repair. default: one of the choices.
    """
    if not chance.differ:
        return _made(default, proxies, truth, tied=(), rule="kept", reaches=None)
    weights = resamples(len(truth), rng=_rng())
    once = np.ones((1, len(truth)))
    # A constant proxy ranks nothing: its τ is worth 0 here.
    tau = {choice: float(np.nan_to_num(kendall(x, truth, once)[0])) for choice, x in proxies.items()}
    drawn = {choice: np.nan_to_num(kendall(x, truth, weights)) for choice, x in proxies.items()}
    best = max(tau, key=lambda choice: tau[choice])
    tied = [c for c in tau if tau[best] - tau[c] <= float(np.std(drawn[best] - drawn[c], ddof=1))]
    least = min(seconds[repair] for repair, _ in tied)
    cheap = [choice for choice in tied if seconds[choice[0]] <= SAME_COST * least]
    chosen = default if default in cheap else max(cheap, key=lambda choice: tau[choice])
    rule = "best" if chosen == best else "default" if chosen == default else "cheaper"
    return _made(chosen, proxies, truth, tied=tuple(tied), rule=rule, reaches=tau[chosen] >= BAR)


def _made(
    choice: Choice,
    proxies: Mapping[Choice, Floats],
    truth: Floats,
    *,
    tied: tuple[Choice, ...],
    rule: str,
    reaches: bool | None,
) -> Recommendation:
    top = better_half(truth)
    x = proxies[choice]
    return Recommendation(
        *choice,
        tau=estimate(kendall, x, truth, rng=_rng()),
        tau_top=estimate(kendall, x[top], truth[top], rng=_rng()),
        tied=tied,
        rule=rule,
        reaches=reaches,
    )


def _rng() -> np.random.Generator:
    """The same draws for every choice, so that they are compared on the same plans."""
    return numpy_rng(0, "fidelity/bootstrap")
