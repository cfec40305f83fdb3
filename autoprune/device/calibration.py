"""Factors that make a roofline fit a handful of measurements."""

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.device.roofline import Factors, Roofline
from autoprune.structure.groups import IntArray

FEWEST = 6  # measured plans, one more than there are factors
ROUNDS = 30  # of deciding what bounds each layer, and then fitting
STARTS = ((1.0, 1.0), (3.0, 1.0), (10.0, 1.0), (3.0, 10.0), (1.0, 10.0))  # of arithmetic, of traffic
RIDGE = 1e-3  # pulls what measurements do not tell towards where the fit began


def fitted_factors(roofline: Roofline, kept: IntArray, measured_ms: FloatArray) -> Factors:
    """The factors with the least mean relative error on plans [plans, groups] and their latencies [plans].

    With it fixed which layers are bound by arithmetic and which by traffic, latency is linear in the factors; so the
    two are decided in turn, from several beginnings. Raises ValueError for fewer than 6 plans.
    """
    if len(kept) < FEWEST or (np.asarray(measured_ms) <= 0).any():
        raise ValueError(
            f"a roofline is fitted to at least {FEWEST} measured plans of more than 0 ms, got {measured_ms}"
        )
    terms = 1e3 * roofline.terms(kept) / np.asarray(measured_ms, np.float64)[:, None, None]
    found = []
    for arithmetic, traffic in STARTS:
        begin = np.array([arithmetic, arithmetic, arithmetic, traffic, 1.0])
        found += _descended(terms, begin)
    best = min(found, key=lambda factors: _error(terms, factors))
    compute, unaligned, depthwise, memory, kernel = (float(value) for value in best)
    return Factors(compute, unaligned / compute if compute else 1.0, depthwise, memory, kernel)


def _descended(terms: FloatArray, factors: FloatArray) -> list[FloatArray]:
    """All the factors that are met on the way. terms: [plans, layers, 5], relative to what was measured."""
    found = [factors]
    begin = np.array(factors)
    for _ in range(ROUNDS):
        arithmetic = terms[..., :3] @ factors[:3]
        by_arithmetic = (arithmetic >= factors[3] * terms[..., 3])[..., None]
        active = terms * np.concatenate(
            [np.repeat(by_arithmetic, 3, -1), ~by_arithmetic, np.ones_like(by_arithmetic)], -1
        )
        factors = _nonnegative(active.sum(axis=1), begin)
        found.append(factors)
        if np.allclose(found[-1], found[-2], rtol=1e-6):
            break
    return found


def _nonnegative(columns: FloatArray, begin: FloatArray) -> FloatArray:
    """The least squares factors of columns [plans, 5] that add up to 1, none below 0."""
    size = np.sqrt((columns**2).mean(axis=0))
    free = size > 0
    factors = begin.copy()
    while True:
        scaled = columns[:, free] / size[free]
        rest = 1 - columns[:, ~free] @ factors[~free]
        pull = np.sqrt(RIDGE * len(columns)) * np.eye(int(free.sum()))
        target = np.concatenate([rest, pull @ (begin[free] * size[free])])
        solved = np.linalg.lstsq(np.vstack([scaled, pull]), target, rcond=None)[0] / size[free]
        factors[free] = np.maximum(solved, 0)
        if (solved >= 0).all():
            return factors
        free[np.flatnonzero(free)[solved < 0]] = False


def _error(terms: FloatArray, factors: FloatArray) -> float:
    arithmetic = terms[..., :3] @ factors[:3]
    latency = (np.maximum(arithmetic, factors[3] * terms[..., 3]) + factors[4] * terms[..., 4]).sum(axis=1)
    return float(np.abs(latency - 1).mean())
