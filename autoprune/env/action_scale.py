"""What an action of an environment means: a group's density, or a correction to that of a prior plan."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.structure.groups import IntArray, Structure

Action = NDArray[np.float32]

LEAST_DENSITY = 0.02  # what an action of −1 asks for
SMALLEST = 1e-6  # density that an action can still say
SPAN = (1 - LEAST_DENSITY) / 2  # density for 1 of action

EVERY = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class PlanScale:
    """Actions in [−1, 1] are densities, or corrections to a prior: its densities · exp(max_log_correction · action).

    `group` in its methods is the one that the last axis is not over, where it is not over all of them.
    """

    prior: FloatArray | None
    """Densities of a plan [groups], or of one for each episode [episodes, groups]; None where actions are densities."""
    max_log_correction: float
    """What an action of 1 adds to the prior's log-density."""

    @classmethod
    def around(cls, prior: IntArray | FloatArray | None, structure: Structure, max_log_correction: float) -> Self:
        """Of a prior's kept units [..., groups]. A module that it passes over counts as half: it may return.

        Args:
            prior: Units of the plan that actions correct [groups]; None for none.
            structure: The network's groups and layers.
            max_log_correction: What an action of 1 adds to the prior's log-density, above 0.
        """
        if max_log_correction <= 0:
            raise ValueError(f"max_log_correction must be positive, got {max_log_correction}")
        if prior is None:
            return cls(None, max_log_correction)
        return cls(np.where(np.asarray(prior) > 0, prior, 0.5) / structure.units, max_log_correction)

    def density(self, action: FloatArray, group: int | slice = EVERY) -> FloatArray:
        """The densities that are asked for, at most 1.

        Args:
            action: In [−1, 1] [groups].
            group: Which groups.
        """
        if self.prior is None:
            return densities_of(action)
        return np.minimum(1.0, self.prior[..., group] * np.exp(self.max_log_correction * np.clip(action, -1, 1)))

    def action(self, density: FloatArray, group: int | slice = EVERY) -> Action:
        """What of a density can be said as an action: the inverse of `density` within [−1, 1].

        Args:
            density: Densities that a policy asked for [..., groups].
            group: Which groups.
        """
        if self.prior is None:
            return actions_of(density).astype(np.float32)
        ratio = np.maximum(density, SMALLEST) / self.prior[..., group]  # a module that is passed over has no density
        return np.clip(np.log(ratio) / self.max_log_correction, -1, 1).astype(np.float32)

    def executable(self, structure: Structure) -> list[Action]:
        """For each group [units + 1]: the action that asks for so many units. Groups of one size may share it."""
        sizes = structure.units.tolist()
        if self.prior is not None:
            return [self.action(np.arange(units + 1) / units, group) for group, units in enumerate(sizes)]
        by_size = {units: self.action(np.arange(units + 1) / units) for units in set(sizes)}
        return [by_size[units] for units in sizes]

    def plans_of(self, executed: Action, projector: Projector) -> IntArray:
        """Returns the plans [n, groups] that executed actions [n, groups] say.

        Args:
            executed: The actions that were executed.
            projector: Moves plans into the budget.
        """
        units = self.density(np.asarray(executed, np.float64)) * projector.units
        return np.stack([projector.snap(units[:, group], group) for group in range(units.shape[1])], axis=1)


def densities_of(actions: FloatArray) -> FloatArray:
    """Returns the densities in [LEAST_DENSITY, 1] that actions in [−1, 1] ask for."""
    return LEAST_DENSITY + SPAN * (np.minimum(np.maximum(actions, -1.0), 1.0) + 1.0)


def actions_of(densities: FloatArray) -> FloatArray:
    """Returns the actions that ask for densities; below LEAST_DENSITY they are −1."""
    return np.clip((densities - LEAST_DENSITY) / SPAN - 1, -1, 1)
