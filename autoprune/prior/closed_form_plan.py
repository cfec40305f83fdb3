"""Plans from least-squares reconstruction errors alone: what a group loses at each width is known without evaluating.

The dynamic program of the sensitivity plan runs on these errors instead of measured curves. How they translate into the
network's loss differs from network to network, so several powers of them are tried.
"""

from collections.abc import Mapping

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.sensitivity_plan import least_loss_plan
from autoprune.structure.groups import Structure

POWERS = (1.0, 2.0, 0.5, 4.0)


def closed_form_plans(
    structure: Structure, projector: Projector, errors: Mapping[str, FloatArray]
) -> list[PruningPlan]:
    """Returns the filled plans of least summed error, one for each of POWERS; equal ones once.

    Args:
        structure: Groups to decide on.
        projector: Holds the budget.
        errors: Group → [units + 1], the relative reconstruction error of its readers by how many units are kept.
    """
    at_levels = [errors[group.name][list(group.levels)].clip(min=0.0) for group in structure.groups]
    plans = [least_loss_plan(structure, projector, [error**power for error in at_levels]) for power in POWERS]
    return list(dict.fromkeys(plans))
