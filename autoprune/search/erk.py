"""Erdős–Rényi-kernel densities (arXiv 1911.11134): the larger a layer, the sparser."""

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import uniform_target
from autoprune.problem.problem import Problem
from autoprune.structure.groups import Group, Layer, Structure


def search(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
    """The plan whose densities are the rule's, scaled to the budget; costs one evaluation.

    Groups of the same density that are whole or gone, or dense or N:M, stay evenly spaced as in the uniform plan.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
    """
    density = erk_densities(problem.structure) * uniform_target(problem.structure)
    plan = problem.structure.plan(problem.projector.project(density))
    problem.objective.evaluate([plan])
    return plan


def erk_densities(structure: Structure) -> FloatArray:
    """The rule's densities, to be scaled by one factor for all: [groups], above 0.

    A layer's is (outputs + inputs + kernel's height and width) ÷ its weights. A group's is the mean of the layers whose
    outputs (or weights, or all) go with its units, weighted by their weights. Kernels are taken to be square.
    """
    return np.array([_density(structure, group) for group in structure.groups])


def _density(structure: Structure, group: Group) -> float:
    with_weights = [layer for layer in structure.layers_of(group) if layer.kind != "norm"]
    produced = {member.layer for member in group.members if member.axis == "out"}
    layers = [layer for layer in with_weights if layer.name in produced and not layer.depthwise] or with_weights
    if not layers:
        raise ValueError(
            f"agent=erk goes by the shapes of layers, and group {group.name!r} has none; try another search"
        )
    return sum(_ends(layer) for layer in layers) / sum(_weights(layer) for layer in layers)


def _ends(layer: Layer) -> float:
    """What grows with a layer's sides, where its weights grow with their product."""
    sides = 2 * layer.kernel**0.5 if layer.kind == "conv" else 0.0  # the paper's plain form for linear layers
    return layer.outputs + layer.inputs + sides


def _weights(layer: Layer) -> int:
    return layer.outputs * layer.inputs * layer.kernel
