"""Factors that make a prediction fit a handful of measurements."""

import numpy as np
from scipy.optimize import nnls

from autoprune.cost.model import FloatArray
from autoprune.device.roofline import Factors, Roofline
from autoprune.structure.groups import IntArray

FEWEST = 6  # measured plans, one more than there are factors
ROUNDS = 30  # of deciding what bounds each layer, and then fitting
STARTS = ((1.0, 1.0), (3.0, 1.0), (10.0, 1.0), (3.0, 10.0), (1.0, 10.0))  # of arithmetic, of traffic
RIDGE = 1e-3  # pulls what measurements do not tell towards what is expected


def ridge_fit(columns: FloatArray, expected: FloatArray, *, nonnegative: bool = False) -> FloatArray:
    """The factors of columns whose sum is nearest to 1 in every row, pulled a little to the expected ones.

    Args:
        columns: [rows, factors] what each factor is multiplied with; one whose column is 0 is as expected.
        expected: [factors]
        nonnegative: No factor is below 0.

    Returns:
        [factors]
    """
    size = np.sqrt((columns**2).mean(axis=0))
    free = size > 0
    pull = np.sqrt(RIDGE * len(columns)) * np.eye(int(free.sum()))
    matrix = np.vstack([columns[:, free] / size[free], pull])
    target = np.concatenate([np.ones(len(columns)), pull @ (expected[free] * size[free])])
    solved = nnls(matrix, target)[0] if nonnegative else np.linalg.lstsq(matrix, target, rcond=None)[0]
    factors = expected.copy()
    factors[free] = solved / size[free]
    return factors


def fitted_factors(roofline: Roofline, kept: IntArray, measured_ms: FloatArray) -> Factors:
    """The factors with the least mean relative error on plans that were measured.

    Where it is fixed which layers are bound by arithmetic and which by traffic, latency is linear in the factors; so
    the two are decided in turn, from several beginnings.

    Args:
        roofline: That of the network.
        kept: [plans, groups] at least 6 plans.
        measured_ms: [plans] above 0.
    """
    if len(kept) < FEWEST or (np.asarray(measured_ms) <= 0).any():
        raise ValueError(
            f"a roofline is fitted to at least {FEWEST} measured plans of more than 0 ms, got {measured_ms}"
        )
    terms = 1e3 * roofline.terms(kept) / np.asarray(measured_ms, np.float64)[:, None, None]
    candidates = []
    for arithmetic, traffic in STARTS:
        candidates += _descended(terms, np.array([arithmetic, arithmetic, arithmetic, traffic, 1.0]))
    best = min(candidates, key=lambda factors: _error(terms, factors))
    compute, unaligned, depthwise, memory, kernel = (float(value) for value in best)
    return Factors(compute, unaligned / compute if compute else 1.0, depthwise, memory, kernel)


def _descended(terms: FloatArray, begin: FloatArray) -> list[FloatArray]:
    """All the factors that are met on the way. terms: [plans, layers, 5], relative to what was measured."""
    met = [begin]
    for _ in range(ROUNDS):
        by_arithmetic = (terms[..., :3] @ met[-1][:3] >= met[-1][3] * terms[..., 3])[..., None]
        active = np.repeat(by_arithmetic, 5, -1)
        active[..., 3], active[..., 4] = ~active[..., 3], True
        met.append(ridge_fit((terms * active).sum(axis=1), begin, nonnegative=True))
        if np.allclose(met[-1], met[-2], rtol=1e-6):
            break
    return met


def _error(terms: FloatArray, factors: FloatArray) -> float:
    arithmetic = terms[..., :3] @ factors[:3]
    latency = (np.maximum(arithmetic, factors[3] * terms[..., 3]) + factors[4] * terms[..., 4]).sum(axis=1)
    return float(np.abs(latency - 1).mean())
