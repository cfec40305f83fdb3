"""A model of what plans are worth: a Gaussian process over log-densities, fitted to every plan that was paid for.

Rewards are bent before, so that differences between good plans count for more than those between bad ones.
"""

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from autoprune.cost.model import FloatArray
from autoprune.structure.groups import IntArray

GONE = 0.5  # units, of a group that keeps none: a logarithm needs some
REFIT = 1.25  # how many times as many plans as at the last fit let the kernel be fitted anew
MOST_PLANS = 600  # that the model is fitted to, the best ones: its time grows with their cube
TRUST = 1.0  # of a prior's mean, as a sum of squares of logarithms: what data have to outweigh
MOST_FOLLOWED = 2.0  # times a prior's mean
NOISE = 1e-4  # variance of bent rewards, in standard deviations squared, that the kernel begins at


class PlanModel:
    """Predicts bent rewards of plans, higher is better: Matérn 5/2 plus a linear term (the GP of arXiv 1206.2944).

    Args:
        units: Of the dense network [groups].
        prior: What is thought of plans before any is paid for: kept [plans, groups] → log by how much each is better
            [plans]. The process learns what is wrong with it; how far it is followed is fitted.
    """

    def __init__(self, units: IntArray, *, prior: Callable[[IntArray], FloatArray] | None = None) -> None:
        self._units, self.prior = units.astype(np.float64), prior
        self._followed, self._prior_centre = 1.0, 0.0
        self._kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(2.0, (0.2, 50.0), nu=2.5) + ConstantKernel(
            0.3, (1e-3, 1e2)
        ) * DotProduct(1.0, (1e-2, 1e2))
        self._kernel += WhiteKernel(NOISE, (1e-6, 1e-1))
        self._process = GaussianProcessRegressor(self._kernel)
        self._fitted = 0
        self._centre, self._spread = np.zeros(len(units)), np.ones(len(units))

    def fit(self, kept: IntArray, rewards: FloatArray) -> None:
        """The model predicts from these plans.

        Args:
            kept: Units [plans, groups].
            rewards: Finite [plans], higher is better.
        """
        order = np.argsort(-rewards, kind="stable")[:MOST_PLANS]
        targets = log_scale(rewards[order])
        if self.prior is not None:
            self._follow(self.prior(kept[order]), targets)
            targets = targets - self._thought(kept[order])
        points = self._logarithms(kept[order])
        if anew := len(rewards) >= REFIT * self._fitted:
            self._fitted = len(rewards)
            self._centre, self._spread = points.mean(axis=0), np.maximum(points.std(axis=0), 0.05)
        self._process = GaussianProcessRegressor(
            self._kernel, alpha=1e-8, normalize_y=True, optimizer="fmin_l_bfgs_b" if anew else None
        )
        with warnings.catch_warnings():  # a bound that is reached says nothing to whoever searches
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(self._scaled(points), targets)
        self._kernel = self._process.kernel_

    def expected(self, kept: IntArray, *, pessimism: float = 0.0) -> FloatArray:
        """Returns the predictions [plans].

        Args:
            kept: Units [plans, groups].
            pessimism: Standard deviations that are taken off the mean.
        """
        mean, deviation = self._process.predict(self._scaled(self._logarithms(kept)), return_std=True)
        return np.asarray(self._thought(kept) + mean - pessimism * deviation)

    def batch(self, kept: IntArray, *, count: int, kappa: float) -> list[int]:
        """Returns the indices of plans to evaluate together, by upper confidence bounds.

        After each choice the uncertainty is what it will be once that plan is judged (GP-BUCB, arXiv 1206.6402).

        Args:
            kept: Candidates [plans, groups].
            count: How many to choose, at most.
            kappa: Standard deviations above the mean; 0 trusts the mean.
        """
        mean, covariance = self._process.predict(self._scaled(self._logarithms(kept)), return_cov=True)
        mean = mean + self._thought(kept)
        chosen: list[int] = []
        free = np.ones(len(kept), bool)
        for _ in range(min(count, len(kept))):
            variance = np.maximum(covariance.diagonal(), 0)
            index = int(np.where(free, mean + kappa * np.sqrt(variance), -np.inf).argmax())
            chosen.append(index)
            free[index] = False
            column = covariance[:, index].copy()
            covariance -= np.outer(column, column) / max(float(column[index]), 1e-12)
        return chosen

    def _follow(self, thoughts: FloatArray, targets: FloatArray) -> None:
        """Fits the factor of the prior's mean: bent rewards are logarithms too, so that it is 1 until data speak."""
        self._prior_centre = float(thoughts.mean())
        centred = thoughts - self._prior_centre
        factor = (centred @ (targets - targets.mean()) + TRUST) / (centred @ centred + TRUST)
        self._followed = float(np.clip(factor, 0, MOST_FOLLOWED))

    def _thought(self, kept: IntArray) -> FloatArray:
        """The prior's mean [plans]; 0 without a prior."""
        if self.prior is None:
            return np.zeros(len(kept))
        return self._followed * (self.prior(kept) - self._prior_centre)

    def _logarithms(self, kept: IntArray) -> FloatArray:
        density: FloatArray = np.log(np.maximum(kept, GONE) / self._units)
        return density

    def _scaled(self, logarithms: FloatArray) -> FloatArray:
        return (logarithms - self._centre) / self._spread


def log_scale(rewards: FloatArray) -> FloatArray:
    """Returns −log(1 + shortfall / typical shortfall), in which the best reward is 0: [plans] → [plans]."""
    shortfall = rewards.max() - rewards
    typical = float(np.quantile(shortfall, 0.25)) or float(shortfall.mean()) or 1.0
    values: FloatArray = -np.log1p(shortfall / typical)
    return values
