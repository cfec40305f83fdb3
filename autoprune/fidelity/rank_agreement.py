"""What can rank plans at all: how much of their difference is seeds' noise, and how well what groups lose adds up.

Higher is better in everything that is ranked here, truths and proxies alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autoprune.statistics import FEWEST_PLANS, LEVEL, Floats, kendall, pearson

DRAWS = 1_000  # of noisy truths


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """How much of the difference between plans is the noise of seeds. What is unknown is NaN."""

    noise: float
    """Standard deviation over seeds of one plan, pooled over plans; NaN where no plan has two seeds."""
    spread: float
    """Standard deviation over plans of their means over seeds."""
    reliability: float
    """The part of the spread's variance that is not noise, in [0, 1]."""
    p: float
    """The probability of a spread this wide among equal plans (F test)."""
    tau: float
    """Kendall's τ that a perfect proxy would reach against truths this noisy."""
    pearson: float
    """Pearson's correlation that a perfect proxy would reach."""

    @property
    def differ(self) -> bool:
        """Whether the plans differ by more than another seed does."""
        return self.p < LEVEL


def noise_verdict(noise: SeedNoise) -> str:
    """Whether accuracies [0, 1] tell the plans apart, in a clause; in percentage points."""
    between_plans, between_seeds = f"{100 * noise.spread:.2f}", f"{100 * noise.noise:.2f}"
    if np.isnan(noise.spread):
        return f"fewer than {FEWEST_PLANS} plans were recovered: nothing can be said yet"
    if np.isnan(noise.p):
        return (
            "nobody knows whether the plans differ: no plan was recovered from two seeds "
            f"(spread {between_plans} points)"
        )
    if noise.differ and noise.noise == 0:
        return f"the plans differ, by {between_plans} points whatever the seed"
    if noise.differ:
        return f"the plans differ, by {between_plans} points where another seed alone does {between_seeds}"
    numbers = f"they differ by {between_plans} points, another seed alone does {between_seeds} (p = {noise.p:.2f})"
    return f"nothing can rank these plans: {numbers}"


def seed_noise(values: Sequence[Sequence[float]], *, rng: np.random.Generator) -> SeedNoise:
    """The noise of seeds beside the spread of plans.

    The reliability is 1 − noise² / spread², the noise being that of the means; `tau` is simulated, see `ceiling`, and
    `pearson` is √reliability.

    Args:
        values: Per plan, one number per seed; of fewer than FEWEST_PLANS only the noise is known.
        rng: Of the simulation.
    """
    noise = pooled_deviation(values)
    if len(values) < FEWEST_PLANS:
        return SeedNoise(noise, *[float("nan")] * 5)
    seeds, means = np.array([len(v) for v in values]), np.array([np.mean(v) for v in values])
    spread, variance = float(means.std(ddof=1)), noise**2 * float((1 / seeds).mean())
    p = _p_of_spread(spread**2, variance, plans=len(values), freedom=int((seeds - 1).sum()))
    if np.isnan(noise) or spread == 0:
        return SeedNoise(noise, spread, np.nan if spread else 0.0, p, np.nan, np.nan)
    reliability = max(0.0, 1 - variance / spread**2)
    exact = means.mean() + np.sqrt(reliability) * (means - means.mean())
    tau = ceiling(exact, noise / np.sqrt(seeds), rng=rng)
    return SeedNoise(noise, spread, reliability, p, tau, float(np.sqrt(reliability)))


def pooled_deviation(values: Sequence[Sequence[float]]) -> float:
    """The standard deviation over seeds of the same plan, pooled over plans; NaN where no plan has two seeds."""
    freedom = sum(len(v) - 1 for v in values)
    squares = sum(float(np.var(np.asarray(v) - v[0])) * len(v) for v in values)  # exactly 0 for equal values
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def ceiling(exact: Floats, noises: Floats, *, rng: np.random.Generator) -> float:
    """Kendall's τ of a perfect proxy with a truth that is seen through normal noise: the mean over DRAWS draws.

    Args:
        exact: [plans] what the proxy knows.
        noises: [plans] the standard deviations of the noise.
        rng: Of the noise.
    """
    observed = exact + rng.normal(0, 1, (DRAWS, len(exact))) * noises
    signs = np.sign(exact[:, None] - exact[None, :])
    agreed = [float((row * np.sign(observed[:, [i]] - observed)).sum()) for i, row in enumerate(signs)]
    return sum(agreed) / (DRAWS * len(exact) * (len(exact) - 1))


def better_half(truth: Floats) -> NDArray[np.bool_]:
    """[plans]: which are among the better half by truth, the middle one of an odd number included."""
    chosen = np.zeros(len(truth), bool)
    chosen[np.argsort(-truth, kind="stable")[: (len(truth) + 1) // 2]] = True
    return chosen


@dataclass(frozen=True, slots=True)
class Additivity:
    """How well the sum of what groups lose alone tells what they lose together."""

    r2: float
    """Of the best line through (sum, joint)."""
    ratio: float
    """The median of joint ÷ sum: 1 where losses add up, more where pruning one group makes pruning another worse."""
    tau: float
    """Kendall's τ of the two."""


def additivity(alone: Floats, joint: Floats) -> Additivity:
    """How far losses of groups pruned alone add up to those of plans.

    Args:
        alone: The loss of each group pruned alone [plans, groups].
        joint: The loss of all of them together [plans].
    """
    total = alone.sum(axis=1)
    ratios = joint[total > 0] / total[total > 0]
    return Additivity(
        r2=float(pearson(total, joint)[0]) ** 2,
        ratio=float(np.median(ratios)) if len(ratios) else float("nan"),
        tau=float(kendall(total, joint)[0]),
    )


def _p_of_spread(spread2: float, noise2: float, *, plans: int, freedom: int) -> float:
    """The F test of equal plans; NaN where no plan has two seeds. Noise of exactly 0 rules chance out."""
    if not freedom:
        return float("nan")
    if spread2 == 0 or noise2 == 0:
        return 1.0 if spread2 == 0 else 0.0
    return float(stats.f.sf(spread2 / noise2, plans - 1, freedom))
