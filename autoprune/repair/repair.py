"""Cheap repairs of a pruned network before it is judged; without one the reward is noise (docs/design.md)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.plan import PruningPlan
from autoprune.quantize.shared_weights import write_codes
from autoprune.ranges import Fraction, check_fields
from autoprune.repair.least_squares import LeastSquares, Reconstruction
from autoprune.repair.replace_me import ReplaceMe, Replacements
from autoprune.repair.sparse_gpt_levels import SparseGPT
from autoprune.repair.weight_levels import WeightLevels
from autoprune.structure.axes import AxisSlices
from autoprune.structure.code_bits import bits_of
from autoprune.structure.edit import Ranking, kept_entries, partly
from autoprune.structure.groups import Structure
from autoprune.task.samples import cut, release_between, samples_within
from autoprune.task.task import Forward, Role, plain_forward

BATCH = 500


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done for a pruned network without a gradient step; the parts can be combined.

    >>> Repair(batch_norm=True)
    Repair(batch_norm=True, least_squares=None, sparse_gpt=None, replace_me=None)
    """

    batch_norm: bool | Fraction
    """The share of BatchNorm's statistics that is measured on the pruned network (EagleEye, arXiv 2007.02491), in
    [0, 1]; the rest is the dense network's. A candidate is measured on the batch it is judged on, which costs no extra
    pass; the network that is handed out is measured on the calibration role."""
    least_squares: LeastSquares | None = None
    """Layers that read pruned units get the weights that best restore their dense outputs (as in He et al., arXiv
    1707.06168, for every width by one factorisation); None: they keep theirs."""
    sparse_gpt: SparseGPT | None = None
    """The weights that matrices are left with make up for the single ones that they lose (arXiv 2301.00774)."""
    replace_me: ReplaceMe | None = None
    """What comes before whole attentions, FFNs and blocks that are gone makes up for them (arXiv 2505.02819)."""

    def __post_init__(self) -> None:
        check_fields(self, "repair")

    def apply(  # noqa: PLR0913 - keyword-only: all that was solved for the network
        self,
        network: nn.Module,
        plan: PruningPlan,
        *,
        structure: Structure,
        ranking: Ranking,
        reconstruction: Reconstruction,
        levels: WeightLevels | None,
        replacements: Replacements | None,
        calibration: Role,
        forward: Forward,
    ) -> None:
        """Repairs a network, shrunk by the plan, for good and in place.

        Args:
            network: The network.
            plan: Units that each group keeps.
            structure: The network's groups and layers.
            ranking: Each group's units, most important first.
            reconstruction: Restored weights for every width.
            levels: Solved weights of matrices that lose single ones; None where there are none.
            replacements: Maps that stand for removed sublayers; None where there are none.
            calibration: Samples that statistics are measured on.
            forward: (network, inputs) → outputs: how the network is called.
        """
        if self.least_squares is not None:
            write_reconstruction(network, plan, structure, ranking, reconstruction)
        if levels is not None:
            write_levels(network, plan, structure, levels)
        write_codes(network, bits_of(structure, plan))
        if replacements is not None:
            replacements.write(network, plan)
        if self.batch_norm:
            measure_batch_norms(network, calibration, forward, share=float(self.batch_norm))


@dataclass(frozen=True, slots=True)
class AutomaticRepair:
    """The first of the repairs that leaves the dense network what it is; where none does, the best on a mild plan.

    Statistics of few or narrow samples can be far from those that a BatchNorm was trained with: every plan would then
    be judged on top of that.
    """

    options: tuple[Repair, ...]
    """In order of preference, at least one."""

    def __post_init__(self) -> None:
        check_fields(self, "repair")
        if not self.options:
            raise ValueError("repair.options is empty; name a repair, such as repair=batch_norm")


@torch.no_grad()
def write_reconstruction(
    network: nn.Module, plan: PruningPlan, structure: Structure, ranking: Ranking, reconstruction: Reconstruction
) -> None:
    """The shrunk network's layers read their inputs by the reconstruction's weights.

    Args:
        network: The network.
        plan: Units that each group keeps.
        structure: The network's groups and layers.
        ranking: Each group's units, most important first.
        reconstruction: Restored weights for every width.
    """
    entries = kept_entries(structure, plan, ranking)
    there = dict(network.named_modules())
    for name in reconstruction.layers:
        if (name, "in") not in entries or name not in there:
            continue  # all of its inputs are there, or it is in a module that is passed over
        layer = network.get_submodule(name)
        weight, bias = reconstruction.weight(name, plan.kept), reconstruction.bias(name, plan.kept)
        axis = AxisSlices(structure, name, "in")
        weight = weight[:, axis.order(ranking)[axis.entries(plan.kept)].argsort()]  # as shrink orders them
        rows = entries.get((name, "out"))
        if rows is not None:
            weight, bias = weight[rows], None if bias is None else bias[rows]
        layer.get_parameter("weight").copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)


@torch.no_grad()
def write_levels(network: nn.Module, plan: PruningPlan, structure: Structure, levels: WeightLevels) -> None:
    """The shrunk network's matrices that lost single weights have the weights of their level.

    Args:
        network: The network.
        plan: Units that each group keeps.
        structure: The network's groups and layers.
        levels: Solved weights of matrices that lose single ones.
    """
    for group, kept in partly(structure, plan):
        for matrix in group.compared:
            if matrix.layer in dict(network.named_modules()):  # and not in a module that is passed over
                weight = network.get_submodule(matrix.layer).get_parameter("weight")
                weight.copy_(levels(matrix.layer, kept).view_as(weight))


@torch.no_grad()
def measure_batch_norms(
    network: nn.Module, calibration: Role, forward: Forward = plain_forward, *, share: float = 1.0
) -> None:
    """Every BatchNorm's running statistics are those of the calibration samples in this network.

    Args:
        network: With its running statistics, in eval mode.
        calibration: The samples.
        forward: How the network is called.
        share: Of the new statistics, in (0, 1]; the rest stays as it was.
    """
    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    size = samples_within(calibration.inputs, BATCH)
    if share < 1:
        mixed = [MixedStatistics(layer, share, remembers=True) for layer in layers]
        for batch in cut(calibration.inputs, size) if layers else ():
            forward(network, batch)
            release_between(batch)
        for each in mixed:
            each.finish()
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average over the batches
        layer.train()
    for batch in cut(calibration.inputs, size) if layers else ():
        forward(network, batch)
        release_between(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


class MixedStatistics:
    """While a BatchNorm in eval mode runs, its statistics are its own and a share of its inputs'."""

    def __init__(self, layer: nn.Module, share: float, *, remembers: bool = False) -> None:
        self.layer, self.share, self.remembers = layer, share, remembers
        self.own: tuple[Tensor, Tensor] | None = None
        self.means: list[tuple[Tensor, Tensor]] = []
        self._hooks = [layer.register_forward_pre_hook(self._enter), layer.register_forward_hook(self._leave)]

    def finish(self) -> None:
        """The layer has its own statistics and the share of the mean of all that it read."""
        for hook in self._hooks:
            hook.remove()
        for name, values in zip(("running_mean", "running_var"), zip(*self.means, strict=True), strict=True):
            getattr(self.layer, name).lerp_(torch.stack(values).mean(dim=0), self.share)

    def _enter(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean: Tensor = layer.running_mean  # type: ignore[assignment]
        variance: Tensor = layer.running_var  # type: ignore[assignment]
        self.own = mean, variance
        channels = inputs[0].float().transpose(0, 1).flatten(1)
        read = channels.mean(dim=1), channels.var(dim=1, correction=0)
        layer.running_mean = mean.lerp(read[0], self.share)
        layer.running_var = variance.lerp(read[1], self.share)
        if self.remembers:
            self.means.append(read)

    def _leave(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert self.own is not None
        layer.running_mean, layer.running_var = self.own
