"""Deep Compression's allocation (arXiv 1510.00149): fixed bits for each kind of layer, and one density for all."""

import logging
from dataclasses import replace

import numpy as np
from torch import nn

from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import uniform_target
from autoprune.problem.problem import Problem
from autoprune.ranges import Count
from autoprune.structure.code_bits import is_coded

log = logging.getLogger(__name__)


def search(problem: Problem, *, rng: np.random.Generator, bits: Count, convolution_bits: Count) -> PruningPlan:
    """Returns the plan of fixed bits and one density everywhere, filled to the budget; it costs one evaluation.

    Where bits are no choice of the problem's, the nearest choice is taken; where no density meets the budget at these
    bits, all have one less.

    Args:
        problem: What is to be solved; its structure decides on bits.
        rng: Not drawn from.
        bits: Of a linear layer's codes, 1 to 8.
        convolution_bits: Of a convolution's.

    Raises:
        ValueError: The structure does not decide on bits, or no plan meets the budget.
    """
    structure, model = problem.structure, problem.task.model
    if not is_coded(structure):
        raise ValueError("agent=deep_compression fixes bits and fills densities; set structure.bits, such as [5,8]")
    for less in range(max(bits, convolution_bits)):
        groups = []
        for group in structure.groups:
            if group.coded:
                linear = isinstance(model.get_submodule(group.coded[0]), nn.Linear)
                aim = max(1, (bits if linear else convolution_bits) - less)
                codes = np.array(group.levels[:-1])
                group = replace(group, levels=(int(codes[np.abs(codes - aim).argmin()]),))
            groups.append(group)
        fixed = replace(structure, groups=tuple(groups))
        try:
            projector = Projector(fixed, problem.projector.budget)
        except ValueError:
            continue
        if not projector.budget.meets(projector.floor):
            continue
        if less:
            log.info("no density meets the budget at %d and %d bits; all have %d less", bits, convolution_bits, less)
        plan = structure.plan(projector.project(uniform_target(fixed)))
        problem.objective.evaluate([plan])
        return plan
    raise ValueError(f"no density meets the budget {problem.projector.budget.text!r}, at whatever fixed bits")
