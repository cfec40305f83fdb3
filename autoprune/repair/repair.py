"""Cheap repairs of a pruned network before it is judged; without one the reward is noise (docs/design.md)."""

from dataclasses import dataclass

import torch
from torch import nn

from autoprune.plan import PruningPlan
from autoprune.repair.least_squares import LeastSquares, Reconstruction
from autoprune.repair.sparse_gpt_levels import SparseGPT
from autoprune.repair.weight_levels import WeightLevels
from autoprune.structure.axes import AxisSlices
from autoprune.structure.edit import Ranking, kept_entries, partly
from autoprune.structure.groups import Structure
from autoprune.task.samples import cut
from autoprune.task.task import Forward, Role, plain_forward

BATCH = 500


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done for a pruned network without a gradient step; the parts can be combined.

    batch_norm: BatchNorm's statistics are measured on the pruned network (EagleEye, arXiv 2007.02491). A candidate
    normalises by the batch it is judged on, which costs no extra pass; the network that is handed out gets the
    statistics of the calibration role.
    least_squares: layers that read pruned units get the weights that best restore their dense outputs (as in He et al.,
    arXiv 1707.06168, for every width by one factorisation).
    sparse_gpt: the weights that matrices are left with make up for the single ones that they lose (arXiv 2301.00774).

    >>> Repair(batch_norm=True)
    Repair(batch_norm=True, least_squares=None, sparse_gpt=None)
    """

    batch_norm: bool
    least_squares: LeastSquares | None = None
    sparse_gpt: SparseGPT | None = None

    def apply(
        self,
        network: nn.Module,
        plan: PruningPlan,
        *,
        structure: Structure,
        ranking: Ranking,
        reconstruction: Reconstruction,
        levels: WeightLevels | None,
        calibration: Role,
        forward: Forward,
    ) -> None:
        """Repairs a network, shrunk by the plan, for good and in place."""
        if self.least_squares is not None:
            write_reconstruction(network, plan, structure, ranking, reconstruction)
        if levels is not None:
            write_levels(network, plan, structure, levels)
        if self.batch_norm:
            measure_batch_norms(network, calibration, forward)


@torch.no_grad()
def write_reconstruction(
    network: nn.Module, plan: PruningPlan, structure: Structure, ranking: Ranking, reconstruction: Reconstruction
) -> None:
    """The shrunk network's layers read their inputs by the reconstruction's weights."""
    entries = kept_entries(structure, plan, ranking)
    there = dict(network.named_modules())
    for name in reconstruction.layers:
        if (name, "in") not in entries or name not in there:
            continue  # all of its inputs are there, or it is in a module that is passed over
        layer = network.get_submodule(name)
        weight, bias = reconstruction.weight(name, plan.kept), reconstruction.bias(name, plan.kept)
        axis = AxisSlices(structure, name, "in")
        weight = weight.index_select(1, axis.order(ranking)[axis.entries(plan.kept)].argsort())  # as shrink orders them
        rows = entries.get((name, "out"))
        if rows is not None:
            weight, bias = weight.index_select(0, rows), None if bias is None else bias.index_select(0, rows)
        layer.get_parameter("weight").copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)


@torch.no_grad()
def write_levels(network: nn.Module, plan: PruningPlan, structure: Structure, levels: WeightLevels) -> None:
    """The shrunk network's matrices that lost single weights have the weights of their level."""
    for group, kept in partly(structure, plan):
        for matrix in group.compared:
            if matrix.layer in dict(network.named_modules()):  # and not in a module that is passed over
                network.get_submodule(matrix.layer).get_parameter("weight").copy_(levels(matrix.layer, kept))


@torch.no_grad()
def measure_batch_norms(network: nn.Module, calibration: Role, forward: Forward = plain_forward) -> None:
    """Every BatchNorm's running statistics are those of the calibration samples in this network."""
    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average over the batches
        layer.train()
    for batch in cut(calibration.inputs, BATCH):
        forward(network, batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
