"""Figure 3: a plan's runnable network."""

import copy
from functools import partial

import torch_pruning
from torch import nn

from autoprune.evaluation.candidates import DTYPES
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.plan import PruningPlan
from experiments.benchmark.bench import Bench, Ready, random_plans
from experiments.benchmark.row import Goal, Row, amount, ratio, seconds_of

TASK = "fashion_resnet20"


def networks(bench: Bench) -> list[Row]:
    """Figure 3. Every repeat is several plans, all different."""
    ready, many = bench.ready(TASK), bench.size(100, 2)
    known, repeats = ready.problem, bench.times(7)
    ordered = OrderedNetwork(
        known.task.model,
        known.structure,
        known.candidates.ranking,
        dtype=DTYPES[known.measured["precision"]],
        batch_statistics=known.candidates.repair.batch_norm,
        reconstruction=None if known.candidates.repair.least_squares is None else known.candidates.reconstruction,
        example_input=known.task.example_input,
    )
    plans = random_plans(ready, ready.projector("macs:0.5"), (repeats + 1) * many, bench.rng(3))
    ours, theirs = list[float](), list[float]()
    for repeat in range(repeats + 1):
        here = plans[repeat * many : (repeat + 1) * many]
        ours.append(seconds_of(partial(_bind, ordered, here)) / many)
        theirs.append(seconds_of(partial(_by_torch_pruning, ready, here[0])))
    ours, theirs = ours[1:], theirs[1:]  # the first round warms up
    return [
        amount("plan → runnable network", "ms", [1000 * seconds for seconds in ours], goal=Goal(0.3, 0.1)),
        ratio("deepcopy and Torch-Pruning ÷ it", theirs, ours, goal=Goal(100, 500, higher=True)),
    ]


def _bind(ordered: OrderedNetwork, plans: list[PruningPlan]) -> None:
    for plan in plans:
        ordered.at(plan.kept)


def _by_torch_pruning(ready: Ready, plan: PruningPlan) -> nn.Module:
    """The same plan as users of Torch-Pruning (arXiv 2301.12900) apply it: a copy, its graph, group by group."""
    known = ready.problem
    network = copy.deepcopy(known.task.model).eval().requires_grad_(True)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=(known.task.example_input,))
    for name, kept in zip(plan.groups, plan.kept, strict=True):
        layer = network.get_submodule(name)
        linear = isinstance(layer, nn.Linear)
        prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        removed = known.candidates.ranking[name][kept:].tolist()
        if removed:
            graph.get_pruning_group(layer, prune, idxs=removed).prune()
    return network
