"""Plans from least-squares reconstruction errors alone: what a group loses at each width is known without evaluating.

The dynamic program of the sensitivity plan runs on these errors instead of measured curves. How they translate into the
network's loss differs from network to network, so four translations are tried: the errors and their squares, as they
are and weighted by how much the loss depends on the outputs that are wrong.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.output_sensitivity import output_sensitivities
from autoprune.prior.sensitivity_plan import least_loss_plan
from autoprune.problem.problem import Problem
from autoprune.structure.groups import Structure

POWERS = (1.0, 2.0)
MOST_PLANS = 2 * len(POWERS)

Errors = Sequence[Sequence[tuple[float, FloatArray]]]
"""For each group and each of its readers: the reader's weight, and its error by how many units are kept [units + 1]."""


def closed_form_plans(structure: Structure, projector: Projector, errors: Errors) -> list[PruningPlan]:
    """Returns the filled plans of least summed error, at most MOST_PLANS; equal ones once.

    Args:
        structure: Groups to decide on.
        projector: Holds the budget.
        errors: Of every group's readers.
    """
    plans = []
    for weighted in (False, True):
        for power in POWERS:
            losses = [
                _loss(readers, list(group.levels), power, weighted)
                for readers, group in zip(errors, structure.groups, strict=True)
            ]
            plans.append(least_loss_plan(structure, projector, losses))
    return list(dict.fromkeys(plans))


def reader_errors(problem: Problem) -> Errors | None:
    """Returns the errors of every group's readers, or None where least squares says nothing of some group.

    Without labels all readers weigh the same.
    """
    unsolved = unsolved_groups(problem)
    if unsolved:
        return None
    reconstruction = problem.candidates.reconstruction
    readers = {
        group.name: [name for name in reconstruction.layers if reconstruction.reads(name, group.name)]
        for group in problem.structure.groups
    }
    names = sorted({name for each in readers.values() for name in each})
    labelled = problem.task.data.calibration.targets is not None
    weights: Mapping[str, float] = output_sensitivities(problem.task, names) if labelled else {}
    return [
        [(weights.get(name, 1.0), reconstruction.error(name, group.name)) for name in readers[group.name]]
        for group in problem.structure.groups
    ]


def unsolved_groups(problem: Problem) -> list[str]:
    """Returns the groups none of whose readers is solved by least squares, so that no error is known of them."""
    reconstruction = problem.candidates.reconstruction
    return [
        group.name
        for group in problem.structure.groups
        if not any(reconstruction.reads(name, group.name) for name in reconstruction.layers)
    ]


def _loss(readers: Sequence[tuple[float, FloatArray]], levels: list[int], power: float, weighted: bool) -> FloatArray:
    """[levels]: the mean over readers, or the sum weighted by the roots of their weights."""
    bent = [(weight, error[levels].clip(min=0.0)) for weight, error in readers]
    if not weighted:
        mean: FloatArray = np.mean([error for _, error in bent], axis=0) ** power
        return mean
    total: FloatArray = np.sum([np.sqrt(weight) * error**power for weight, error in bent], axis=0)
    return total
