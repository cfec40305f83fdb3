"""How well one list of numbers ranks another, and how well anything could: pure functions on arrays.

Higher is better in everything that is ranked here, truths and proxies alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats, Floats], Floats]  # (x [plans], y [plans], weights [resamples, plans])

RESAMPLES = 1_000
DRAWS = 20_000  # of F
LEVEL = 0.05  # the chance at which equal plans would be called different
FEWEST = 3  # plans that can be ranked at all


@dataclass(frozen=True, slots=True)
class RankEstimate:
    """A statistic with its 95 % percentile-bootstrap interval and standard error over plans, NaN where it has none."""

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """How much of the difference between plans is chance.

    noise: standard deviation over seeds of one plan, pooled over plans; NaN where no plan has two seeds. spread:
    standard deviation over plans of their means over seeds. reliability: the part of the spread's variance that is not
    noise, in [0, 1]. p: the chance of a spread this wide among equal plans.
    tau, pearson: what a perfect proxy would reach against truths this noisy. What is unknown is NaN.
    """

    noise: float
    spread: float
    reliability: float
    p: float
    tau: float
    pearson: float

    @property
    def differ(self) -> bool:
        """Whether the plans differ by more than another seed does."""
        return self.p < LEVEL


def verdict(found: SeedNoise) -> str:
    """Whether accuracies [0, 1] tell the plans apart, in a clause; in percentage points."""
    spread, noise = f"{100 * found.spread:.2f}", f"{100 * found.noise:.2f}"
    if np.isnan(found.spread):
        return f"fewer than {FEWEST} plans were recovered: nothing can be said yet"
    if np.isnan(found.p):
        return f"nobody knows whether the plans differ: no plan was recovered from two seeds (spread {spread} points)"
    if found.differ and found.noise == 0:
        return f"the plans differ, by {spread} points whatever the seed"
    if found.differ:
        return f"the plans differ, by {spread} points where another seed alone does {noise}"
    numbers = f"they differ by {spread} points, another seed alone does {noise} (p = {found.p:.2f})"
    return f"nothing can rank these plans: {numbers}"


def chance(values: Sequence[Sequence[float]], *, rng: np.random.Generator) -> SeedNoise:
    """values: per plan, one number per seed; of fewer than FEWEST plans only the noise is known.

    The reliability is 1 − noise² / spread², the noise being that of the means; p is the F test's. tau is simulated, see
    `ceiling`; pearson is √reliability.
    """
    noise = seed_noise(values)
    if len(values) < FEWEST:
        return SeedNoise(noise, *[float("nan")] * 5)
    seeds, means = np.array([len(v) for v in values]), np.array([np.mean(v) for v in values])
    spread, variance = float(means.std(ddof=1)), noise**2 * float((1 / seeds).mean())
    p = _p_of_spread(spread**2, variance, plans=len(values), freedom=int((seeds - 1).sum()), rng=rng)
    if np.isnan(noise) or spread == 0:
        return SeedNoise(noise, spread, np.nan if spread else 0.0, p, np.nan, np.nan)
    reliability = max(0.0, 1 - variance / spread**2)
    exact = means.mean() + np.sqrt(reliability) * (means - means.mean())
    return SeedNoise(
        noise=noise,
        spread=spread,
        reliability=reliability,
        p=p,
        tau=ceiling(exact, noise / np.sqrt(seeds), rng=rng),
        pearson=float(np.sqrt(reliability)),
    )


def seed_noise(values: Sequence[Sequence[float]]) -> float:
    """The standard deviation over seeds of the same plan, pooled over plans; NaN where no plan has two seeds."""
    freedom = sum(len(v) - 1 for v in values)
    squares = sum(float(np.var(np.asarray(v) - v[0])) * len(v) for v in values)  # exactly 0 for equal values
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def ceiling(exact: Floats, noises: Floats, *, rng: np.random.Generator) -> float:
    """Kendall's τ of a perfect proxy, one that knows `exact` [plans], with a truth that is seen through normal noise.

    noises [plans]: its standard deviations. The mean over RESAMPLES draws.
    """
    seen = exact + rng.normal(0, 1, (RESAMPLES, len(exact))) * noises
    signs = np.sign(exact[:, None] - exact[None, :])
    agreed = [float((row * np.sign(seen[:, [i]] - seen)).sum()) for i, row in enumerate(signs)]
    return sum(agreed) / (RESAMPLES * len(exact) * (len(exact) - 1))


def better_half(truth: Floats) -> NDArray[np.bool_]:
    """[plans]: which are among the better half by truth, the middle one of an odd number included."""
    chosen = np.zeros(len(truth), bool)
    chosen[np.argsort(-truth, kind="stable")[: (len(truth) + 1) // 2]] = True
    return chosen


def estimate(statistic: Statistic, x: Floats, y: Floats, *, rng: np.random.Generator) -> RankEstimate:
    """The statistic of x and y, resampled over plans in pairs."""
    if len(x) < FEWEST:
        return RankEstimate(np.nan, np.nan, np.nan, np.nan)
    value = float(statistic(x, y, np.ones((1, len(x))))[0])
    values = statistic(x, y, resamples(len(x), rng=rng))
    values = values[np.isfinite(values)]
    if np.isnan(value) or not len(values):
        return RankEstimate(value, np.nan, np.nan, np.nan)
    low, high = np.quantile(values, [0.025, 0.975])
    return RankEstimate(value, float(low), float(high), float(values.std(ddof=1)))


def resamples(plans: int, *, rng: np.random.Generator) -> Floats:
    """[RESAMPLES, plans]: how often each plan is drawn."""
    return rng.multinomial(plans, np.full(plans, 1 / plans), size=RESAMPLES).astype(np.float64)


def kendall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Kendall's τ-b [resamples], NaN where x or y is constant. A plan that is drawn twice is no pair with itself."""
    a, b = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    both, in_x, in_y = (((weights @ pairs) * weights).sum(axis=1) for pairs in (a * b, a * a, b * b))
    return _divided(both, np.sqrt(in_x * in_y))


def pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation [resamples], NaN where x or y is constant."""
    share = weights / weights.sum(axis=1, keepdims=True)
    a, b = x - x.mean(), y - y.mean()  # otherwise a constant far from zero has a variance of rounding errors
    covariance = share @ (a * b) - (share @ a) * (share @ b)
    variances = [np.maximum(0, share @ (v * v) - (share @ v) ** 2) for v in (a, b)]
    return _divided(covariance, np.sqrt(variances[0] * variances[1]))


def spearman(x: Floats, y: Floats) -> float:
    """Pearson's correlation of the ranks; ties share their mean rank."""
    return float(pearson(_ranks(x), _ranks(y), np.ones((1, len(x))))[0])


@dataclass(frozen=True, slots=True)
class Additivity:
    """How well the sum of what groups lose alone tells what they lose together.

    r2: of the best line through (sum, joint). ratio: the median of joint ÷ sum; 1 where losses add up, more where
    pruning one group makes pruning another worse. tau: Kendall's τ of the two.
    """

    r2: float
    ratio: float
    tau: float


def additivity(alone: Floats, joint: Floats) -> Additivity:
    """alone [plans, groups]: the loss of each group pruned alone; joint [plans]: of all of them together."""
    total, once = alone.sum(axis=1), np.ones((1, len(joint)))
    ratios = joint[total > 0] / total[total > 0]
    return Additivity(
        r2=float(pearson(total, joint, once)[0]) ** 2,
        ratio=float(np.median(ratios)) if len(ratios) else float("nan"),
        tau=float(kendall(total, joint, once)[0]),
    )


def _p_of_spread(spread2: float, noise2: float, *, plans: int, freedom: int, rng: np.random.Generator) -> float:
    """The F test of equal plans; NaN where no plan has two seeds. Noise of exactly 0 is chance ruled out."""
    if not freedom:
        return float("nan")
    if spread2 == 0 or noise2 == 0:
        return 1.0 if spread2 == 0 else 0.0
    wider = rng.f(plans - 1, freedom, DRAWS) >= spread2 / noise2
    return float(np.count_nonzero(wider)) / wider.size


def _divided(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 1e-300)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = (last - (counts - 1) / 2)[inverse]
    return mean
