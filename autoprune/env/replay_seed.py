"""What is known of whole plans before an agent acts: what a replay begins with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.env.action_scale import Action
from autoprune.env.episodes import Observation
from autoprune.prior.level_switches import Neighbours


@dataclass(frozen=True, slots=True, eq=False)
class ReplaySeed:
    """Plans that were evaluated before an agent acts, where each step is an episode that begins at one observation."""

    observation: Observation
    """[features]"""
    actions: Action
    """What says the plans [n, entries]."""
    rewards: NDArray[np.float64]
    """[n]"""
    executable: Callable[[Action], Action]
    """Returns what would be executed of actions [any, entries]."""
    neighbours: Neighbours
    """Returns an executed action near each of others."""
    done: int = 1
    """So many of the last actions can be executed; the others are of plans outside the budget."""
