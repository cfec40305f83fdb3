"""Wishes that become plans without regard to a budget: for searches that keep to it in another way."""

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import BoolArray, Projector
from autoprune.structure.groups import IntArray


class Rounding(Projector):
    """Takes the place of a Projector where the reward, not the projection, speaks of the budget.

    A wish becomes the nearest allowed levels, whatever they cost.
    """

    def project(self, density: FloatArray) -> IntArray:
        """density [..., groups], at most 1 is executed → kept"""
        units: FloatArray = np.minimum(np.asarray(density, np.float64), 1.0) * self.units
        return np.stack([self.snap(units[..., group], group) for group in range(len(self.levels))], axis=-1)

    def choices(self, kept: IntArray, group: int) -> BoolArray:
        """Every level."""
        return np.ones((*kept.shape[:-1], len(self.levels[group])), bool)
