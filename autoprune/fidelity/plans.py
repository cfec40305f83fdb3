"""The plans that fidelity is measured on: from hopeless to good, all filled to one budget."""

import numpy as np

from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.structure.groups import Structure

LEAST_DENSITY = 0.1
SPREAD = 0.3  # standard deviation of the logarithm of a density around a good plan's


def sampled_plans(
    structure: Structure, projector: Projector, good: PruningPlan, *, plans: int, rng: np.random.Generator
) -> list[PruningPlan]:
    """Different plans: the uniform one, the good one, then in turn one at random and one around the good one.

    A search meets both kinds: its first plans are as the random ones, its last as those around a good one. Densities of
    the first are uniform in [LEAST_DENSITY, 1], those of the second log-normal around the good plan's.

    Args:
        structure: The network's groups and layers.
        projector: Moves plans into the budget.
        good: A plan that a search ended with.
        plans: How many.
        rng: Draws the plans.
    """
    groups = len(structure.groups)
    kept = [projector.project(np.ones(groups)), np.array(good.kept)]
    centre = np.array(good.kept) / structure.units
    distinct = dict.fromkeys(structure.plan(k) for k in kept)
    tries = 0
    while len(distinct) < plans:
        at_random = rng.uniform(LEAST_DENSITY, 1, groups)
        around = centre * np.exp(rng.normal(0, SPREAD, groups))
        distinct[structure.plan(projector.project(at_random if len(distinct) % 2 else around))] = None
        tries += 1
        if tries > 100 * plans:
            raise ValueError(f"budget {projector.budget.text} leaves fewer than {plans} different plans; ask for fewer")
    return list(distinct)[:plans]
