"""The statistics of a comparison over few runs (arXiv 2108.13264): pure functions on arrays.

An agent's scores are strata: one array of scores, one per run, for each task × budget. Resampling is within strata.
Higher is better in all of them. They agree with the package rliable where both say something.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Strata = Sequence[Floats]
Verdict = Literal["better", "worse", "no difference", "too few seeds"]

RESAMPLES = 2_000
LEVEL = 0.05
QUANTILES = (LEVEL / 2, 1 - LEVEL / 2)
TINY = 1e-9  # what sums of equal numbers may differ by


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % percentile-bootstrap interval, which holds it."""

    value: float
    low: float
    high: float


def iqm(values: ArrayLike) -> Floats:
    """The interquartile mean over the last axis: of what is left without the lowest and the highest quarter.

    NaN where one of the values is.

    >>> float(iqm([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    middle = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)  # NaN is sorted last


def resampled_iqms(strata: Strata, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """[resamples, …]: the IQM over the runs of all strata [runs, …], each stratum resampled by itself."""
    drawn = [values[rng.integers(len(values), size=(resamples, len(values)))] for values in strata]
    return iqm(np.moveaxis(np.concatenate(drawn, axis=1), 1, -1))


def estimate(value: float, draws: Floats) -> Estimate:
    """value with its interval from draws [resamples]; the interval is widened to hold the value."""
    low, high = np.quantile(draws, QUANTILES)
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def iqm_estimate(strata: Strata, *, rng: np.random.Generator) -> Estimate:
    """The IQM over the runs of all strata, with its stratified-bootstrap interval."""
    return estimate(float(iqm(np.concatenate(list(strata)))), resampled_iqms(strata, rng=rng))


def improvement(a: Strata, b: Strata) -> float:
    """The probability that a run of a is better than one of b in the same stratum, ties half; the mean over strata.

    a, b: the same strata in the same order.

    >>> improvement([np.array([1.0, 2.0])], [np.array([0.0, 2.0])])
    0.625
    """
    return float(np.mean([_wins(x, y).mean() for x, y in zip(a, b, strict=True)]))


def resampled_counts(strata: Strata, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> list[Floats]:
    """[resamples, runs] for each stratum: how often each of its runs is in each resample."""
    evenly = [np.full(len(values), 1 / len(values)) for values in strata]
    return [rng.multinomial(len(p), p, resamples).astype(np.float64) for p in evenly]


def improvement_estimate(a: Strata, b: Strata, *, counts: tuple[Strata, Strata]) -> Estimate:
    """`improvement` with its stratified-bootstrap interval. counts: a's and b's `resampled_counts`."""
    shares = [
        ((of_a @ _wins(x, y)) * of_b).sum(axis=1) / (len(x) * len(y))
        for x, y, of_a, of_b in zip(a, b, *counts, strict=True)
    ]
    return estimate(improvement(a, b), np.mean(shares, axis=0))


def profile(strata: Strata, thresholds: Floats) -> Floats:
    """[thresholds]: the share of runs with a score above each."""
    values = np.concatenate(list(strata))
    return np.asarray((values[None, :] > thresholds[:, None]).mean(axis=1), np.float64)


def profile_band(strata: Strata, thresholds: Floats, *, counts: Strata) -> tuple[Floats, Floats]:
    """[thresholds] each: the lower and upper ends of the profile's stratified-bootstrap intervals, point by point."""
    above = [drawn @ (values[:, None] > thresholds[None, :]) for values, drawn in zip(strata, counts, strict=True)]
    low, high = np.quantile(np.sum(above, axis=0) / sum(map(len, strata)), QUANTILES, axis=0)
    return low, high


def hypervolume(costs: ArrayLike, qualities: ArrayLike, *, cost: float, quality: float) -> float:
    """The area that points dominate up to a reference: each point all that is at least as costly and at most as good.

    costs, qualities: [points]; cost, quality: the reference's. Points beyond it add nothing.

    >>> hypervolume([0.25, 0.5], [0.5, 0.75], cost=1.0, quality=0.0)
    0.5
    """
    x, y = np.asarray(costs, np.float64), np.asarray(qualities, np.float64)
    inside = (x < cost) & (y > quality)
    order = np.argsort(x[inside], kind="stable")
    x, best = x[inside][order], np.maximum.accumulate(y[inside][order] - quality)
    return float((np.diff(np.append(x, cost)) * best).sum())


def verdict(difference: Estimate, *, told: bool) -> Verdict:
    """told: whether there are seeds enough to tell anything, see `tells`."""
    if not told:
        return "too few seeds"
    if difference.low > TINY:
        return "better"
    return "worse" if difference.high < -TINY else "no difference"


def tells(seeds: Sequence[tuple[int, int]]) -> bool:
    """Whether so many runs of each (of a, of b; per stratum) can be told apart at 95 % at all.

    Two groups that are alike are apart completely, in one direction or the other, in 2 of all their permutations.

    >>> tells([(3, 3)]), tells([(4, 4)]), tells([(3, 3), (3, 3)])
    (False, True, True)
    """
    permutations = math.prod(math.comb(a + b, a) for a, b in seeds)
    return 2 / permutations <= LEVEL


def seeds_needed(strata: int) -> int:
    """The fewest seeds of each of two agents by which so many strata can tell them apart; at least two.

    >>> [seeds_needed(strata) for strata in (1, 2, 3)]
    [4, 3, 2]
    """
    return next(n for n in range(2, 5) if tells([(n, n)] * strata))


def _wins(x: Floats, y: Floats) -> Floats:
    """[of x, of y]: 1 where x is higher, ½ where they are equal, else 0."""
    return np.asarray((x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :]), np.float64)
