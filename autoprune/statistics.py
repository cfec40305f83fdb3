"""What few runs, or few plans, can tell: means, rank correlations, bootstrap intervals, fronts; pure functions.

An agent's scores are strata: one array of scores, one per run, for each task and budget. Resampling is within strata,
and higher is better in all of them (arXiv 2108.13264; they agree with the package rliable where both say something).
A proxy and what it stands for are two arrays with one value for each plan, which are resampled in pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Strata = Sequence[Floats]
Correlation = Callable[[Floats, Floats, Floats], Floats]  # (x [plans], y [plans], counts [resamples, plans])
Verdict = Literal["better", "worse", "no difference", "too few seeds"]

RESAMPLES = 2_000
LEVEL = 0.05  # the probability at which equal things may be called different
QUANTILES = (LEVEL / 2, 1 - LEVEL / 2)
TINY = 1e-9  # what sums of equal numbers may differ by
FEWEST_PLANS = 3  # that can be ranked at all


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % percentile-bootstrap interval. What cannot be known is NaN."""

    value: float
    """Of the data as they are."""
    low: float
    """The interval's lower end, at most the value."""
    high: float
    """The interval's upper end, at least the value."""
    error: float
    """The standard error: the standard deviation over resamples."""

    @classmethod
    def of(cls, value: float, draws: Floats) -> Self:
        """The value with its interval.

        Args:
            value: The statistic of the data.
            draws: [resamples] its values on resampled data; those that are not finite are left out.
        """
        finite = draws[np.isfinite(draws)]
        if not math.isfinite(value) or len(finite) < 2:
            return cls(float(value), math.nan, math.nan, math.nan)
        low, high = np.quantile(finite, QUANTILES)
        return cls(float(value), float(min(low, value)), float(max(high, value)), float(finite.std(ddof=1)))


def iqm(values: ArrayLike) -> Floats:
    """The interquartile mean over the last axis: of what is left without the lowest and the highest quarter.

    NaN where one of the values is.

    >>> float(iqm([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    array = np.asarray(values, np.float64)
    unknown = np.isnan(array)  # SciPy goes through rows with one of these in Python
    trimmed = stats.trim_mean(np.where(unknown, 0.0, array), 0.25, axis=-1)
    return np.where(unknown.any(axis=-1), np.nan, trimmed)


def resampled_iqms(strata: Strata, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """[resamples, …]: the IQM over the runs of all strata [runs, …], each stratum resampled by itself.

    Args:
        strata: Scores of runs, task by task.
        rng: Draws the resamples.
        resamples: Bootstrap resamples.
    """
    drawn = [values[rng.integers(len(values), size=(resamples, len(values)))] for values in strata]
    return iqm(np.moveaxis(np.concatenate(drawn, axis=1), 1, -1))


def iqm_estimate(strata: Strata, *, rng: np.random.Generator) -> Estimate:
    """The IQM over the runs of all strata, with its stratified-bootstrap interval.

    Args:
        strata: Scores of runs, task by task.
        rng: Draws the resamples.
    """
    return Estimate.of(float(iqm(np.concatenate(list(strata)))), resampled_iqms(strata, rng=rng))


def resampled_counts(values: int, *, rng: np.random.Generator) -> Floats:
    """[RESAMPLES, values]: how often each of so many values is in each resample.

    Args:
        values: How many runs there are.
        rng: Draws the resamples.
    """
    return rng.multinomial(values, np.full(values, 1 / values), RESAMPLES).astype(np.float64)


def improvement(a: Strata, b: Strata) -> float:
    """The probability that a run of a is better than one of b in the same stratum, ties half; the mean over strata.

    Args:
        a: Scores of one agent by stratum.
        b: Those of another, of the same strata in the same order.

    >>> improvement([np.array([1.0, 2.0])], [np.array([0.0, 2.0])])
    0.625
    """
    return float(np.mean([_wins(x, y).mean() for x, y in zip(a, b, strict=True)]))


def improvement_estimate(a: Strata, b: Strata, *, counts: tuple[Strata, Strata]) -> Estimate:
    """`improvement` with its stratified-bootstrap interval.

    Args:
        a: Scores of one agent by stratum.
        b: Those of another, of the same strata in the same order.
        counts: a's and b's `resampled_counts`, by stratum.
    """
    shares = [
        ((of_a @ _wins(x, y)) * of_b).sum(axis=1) / (len(x) * len(y))
        for x, y, of_a, of_b in zip(a, b, *counts, strict=True)
    ]
    return Estimate.of(improvement(a, b), np.mean(shares, axis=0))


def profile(strata: Strata, thresholds: Floats) -> Floats:
    """[thresholds]: the share of runs with a score above each.

    Args:
        strata: Scores of runs, task by task.
        thresholds: Scores that runs are counted above.
    """
    values = np.concatenate(list(strata))
    return np.asarray((values[None, :] > thresholds[:, None]).mean(axis=1), np.float64)


def profile_band(strata: Strata, thresholds: Floats, *, counts: Strata) -> tuple[Floats, Floats]:
    """[thresholds] each: the lower and upper ends of the profile's stratified-bootstrap intervals, point by point.

    Args:
        strata: Scores of runs, task by task.
        thresholds: Scores that runs are counted above.
        counts: How often each run counts in each resample.
    """
    above = [drawn @ (values[:, None] > thresholds[None, :]) for values, drawn in zip(strata, counts, strict=True)]
    low, high = np.quantile(np.sum(above, axis=0) / sum(map(len, strata)), QUANTILES, axis=0)
    return low, high


def is_constant(strata: Strata) -> bool:
    """Whether the runs of each stratum all have one score: no seed changes it."""
    return all(np.ptp(values) <= TINY for values in strata)


def seeds_suffice(a: Strata, b: Strata) -> bool:
    """Whether so few runs of a and b, of the same strata, can be told apart at 95 %.

    Two groups that are alike are apart completely, in one direction or the other, in 2 of all their permutations, and
    these have to be enough. A constant has no seeds to be counted: two of them simply differ or not; against one, it
    stands for as many runs as there are of the other, and where these are too few, Student's t may still do.

    Args:
        a: Scores of one agent by stratum.
        b: Those of another, of the same strata in the same order.

    >>> three = np.array([0.9, 1.0, 1.1])
    >>> seeds_suffice([three], [three + 5]), seeds_suffice([three] * 2, [three + 5] * 2)
    (False, True)
    >>> seeds_suffice([three], [np.zeros(3)]), seeds_suffice([three], [np.full(1, 0.8)])
    (True, False)
    """
    constant = is_constant(a), is_constant(b)
    if all(constant):
        return True
    if constant[0]:
        a, b = b, a
    sizes = [(len(x), max(len(x), len(y)) if any(constant) else len(y)) for x, y in zip(a, b, strict=True)]
    if 2 / math.prod(math.comb(m + n, m) for m, n in sizes) <= LEVEL:
        return True
    return any(constant) and _student(a, [float(y.mean()) for y in b]) <= LEVEL


def seeds_needed(strata: int) -> int:
    """The fewest seeds of each of two agents by which so many strata can tell them apart; at least two.

    >>> [seeds_needed(strata) for strata in (1, 2, 3)]
    [4, 3, 2]
    """
    return next(n for n in range(2, 5) if 2 / math.comb(2 * n, n) ** strata <= LEVEL)


def verdict(difference: Estimate, *, significant: bool) -> Verdict:
    """What can be said of a difference.

    Args:
        difference: The difference with its interval.
        significant: Whether the seeds suffice to say anything, see `seeds_suffice`.
    """
    if not significant:
        return "too few seeds"
    if difference.low > TINY:
        return "better"
    return "worse" if difference.high < -TINY else "no difference"


def kendall(x: Floats, y: Floats, counts: Floats | None = None) -> Floats:
    """Kendall's τ-b, NaN where x or y is constant; a plan that is drawn twice is no pair with itself.

    For all resamples at once, which SciPy's, one call for each, takes a hundred times as long for.

    Args:
        x: [plans].
        y: [plans].
        counts: [resamples, plans] how often each plan is drawn; None is once each.

    Returns:
        [resamples], one value where counts is None.
    """
    drawn = np.ones((1, len(x))) if counts is None else counts
    a, b = (np.sign(np.subtract.outer(v, v)) for v in (x, y))
    both, in_x, in_y = (((drawn @ pairs) * drawn).sum(axis=1) for pairs in (a * b, a * a, b * b))
    return _divided(both, np.sqrt(in_x * in_y))


def pearson(x: Floats, y: Floats, counts: Floats | None = None) -> Floats:
    """Pearson's correlation, NaN where x or y is constant; as `kendall`.

    Args:
        x: Numbers.
        y: As many numbers.
        counts: How often each point counts; None: once.
    """
    drawn = np.ones((1, len(x))) if counts is None else counts
    share = drawn / drawn.sum(axis=1, keepdims=True)
    a, b = x - x.mean(), y - y.mean()  # otherwise a constant far from zero has a variance of rounding errors
    covariance = share @ (a * b) - (share @ a) * (share @ b)
    variances = [np.maximum(0, share @ (v * v) - (share @ v) ** 2) for v in (a, b)]
    return _divided(covariance, np.sqrt(variances[0] * variances[1]))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of the ranks, ties sharing their mean rank; NaN where x or y is constant.

    Args:
        x: Numbers.
        y: As many numbers.

    >>> round(spearman([1, 2, 3], [4, 9, 30]), 9)
    1.0
    """
    return float(pearson(stats.rankdata(x), stats.rankdata(y))[0])


def correlation_estimate(correlation: Correlation, x: Floats, y: Floats, *, rng: np.random.Generator) -> Estimate:
    """`kendall` or `pearson` of x and y [plans], resampled over plans in pairs; NaN of fewer than FEWEST_PLANS.

    Args:
        correlation: What is computed of each resample.
        x: Numbers.
        y: As many numbers.
        rng: Draws the resamples.
    """
    if len(x) < FEWEST_PLANS:
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    value = correlation(x, y, np.ones((1, len(x))))[0]
    return Estimate.of(float(value), correlation(x, y, resampled_counts(len(x), rng=rng)))


def hypervolume(costs: ArrayLike, qualities: ArrayLike, *, cost: float, quality: float) -> float:
    """The area that points dominate up to a reference: each point all that is at least as costly and at most as good.

    Args:
        costs: [points].
        qualities: [points].
        cost: The reference's; points beyond it add nothing.
        quality: The reference's.

    >>> hypervolume([0.25, 0.5], [0.5, 0.75], cost=1.0, quality=0.0)
    0.5
    """
    x, y = np.asarray(costs, np.float64), np.asarray(qualities, np.float64)
    inside = (x < cost) & (y > quality)
    order = np.argsort(x[inside], kind="stable")
    x, best = x[inside][order], np.maximum.accumulate(y[inside][order] - quality)
    return float((np.diff(np.append(x, cost)) * best).sum())


def pareto_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.int64]:
    """Indices of the points that no other is at most as costly and better, or cheaper and as good; by ascending cost.

    Points where either is NaN are no part of it; of equal points the first is.

    Args:
        cost: Costs [points], less is better.
        quality: Qualities [points], more is better.

    >>> pareto_front([1, 2, 2, 3], [0.5, 0.6, 0.9, 0.8]).tolist()
    [0, 2]
    """
    costs, qualities = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    if costs.ndim != 1 or costs.shape != qualities.shape:
        raise ValueError(f"cost and quality must be [points] alike, got shapes {costs.shape} and {qualities.shape}")
    defined = np.flatnonzero(~(np.isnan(costs) | np.isnan(qualities)))
    order = defined[np.lexsort((defined, -qualities[defined], costs[defined]))]  # the best of each cost comes first
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], qualities[order]]))[:-1]
    return np.asarray(order[qualities[order] > best_before], np.int64)


def _wins(x: Floats, y: Floats) -> Floats:
    """[of x, of y]: 1 where x is higher, ½ where they are equal, else 0."""
    return np.asarray((x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :]), np.float64)


def _student(strata: Strata, constants: Sequence[float]) -> float:
    """The p-value of means that are the strata's constants, with one variance over runs in all strata."""
    freedom = sum(len(values) - 1 for values in strata)
    if not freedom:
        return 1.0
    over = np.concatenate([values - constant for values, constant in zip(strata, constants, strict=True)])
    variance = sum(float(values.var()) * len(values) for values in strata) / freedom
    return float(2 * stats.t.sf(abs(over.mean()) / math.sqrt(variance / len(over)), freedom))


def _divided(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 1e-300)
