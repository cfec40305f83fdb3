"""What is left of a network makes up for whole sublayers that are gone (ReplaceMe, arXiv 2505.02819)."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.importance.layer_inputs import batches
from autoprune.plan import PruningPlan
from autoprune.ranges import Count, Positive, check_fields
from autoprune.structure.axes import Kept
from autoprune.structure.edit import evaluating
from autoprune.structure.families import FAMILIES, Family, model_type
from autoprune.structure.groups import Structure, holds
from autoprune.task.task import Forward, Role, first_outputs

BATCH = 16  # samples
CACHED_BYTES = 256 * 2**20  # of maps that are kept for the next plan with the same run


@dataclass(frozen=True, slots=True)
class ReplaceMe:
    """How the maps are solved for that stand for removed sublayers.

    >>> ReplaceMe(ridge=0.01, rows=4096)
    ReplaceMe(ridge=0.01, rows=4096)
    """

    ridge: Positive
    """How strongly the layer before a run is held to its own weights, relative to the mean square of each output."""
    rows: Count
    """Positions of calibration samples that it is solved on, at most."""

    def __post_init__(self) -> None:
        check_fields(self, "repair.replace_me")


class Replacements:
    """A linear map for every run of removed sublayers, merged into the sublayer before the run, at no cost.

    A sublayer adds M to the stream, and the run of sublayers behind it would have added D. Where the run is gone, the
    sublayer adds T M instead, with the T by which that is nearest to M + D in the dense network, by ridge regression.
    As M is what a linear layer returns, T W takes the place of its weight W, and T b that of its bias. A run with which
    the network begins has no sublayer before it, and is left out as it is.

    Args:
        outputs: The last layer of every sublayer, in order of execution; what it returns is added to the stream.
        removed_by: The groups that can remove each sublayer.
        streams: The stream before every sublayer, and behind the last one [sublayers + 1, rows, features].
        ridge: Relative to the mean square of each output, above 0.

    >>> maps = replacements.of(kept)  # doctest: +SKIP
    >>> weight = maps["model.layers.3.mlp.down_proj"] @ weight  # doctest: +SKIP
    """

    def __init__(
        self, outputs: Sequence[str], removed_by: Sequence[frozenset[int]], streams: Tensor, *, ridge: float
    ) -> None:
        self.outputs, self.removed_by = tuple(outputs), tuple(removed_by)
        self._streams, self._ridge = streams, ridge
        self._maps: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def of(self, kept: Kept) -> dict[str, Tensor]:
        """Layer → T [features, features], of the layers before the runs that a plan removes.

        Args:
            kept: Units of each group.
        """
        return {self.outputs[first - 1]: self._map(first, last) for first, last in self.runs(kept)}

    def runs(self, kept: Kept) -> list[tuple[int, int]]:
        """Removed sublayers that follow each other, as (first, behind the last); but for a run at the very beginning.

        Args:
            kept: Units of each group.
        """
        gone = [any(kept[group] == 0 for group in groups) for groups in self.removed_by]
        runs, first = [], None
        for index, removed in enumerate([*gone, False]):
            if removed and first is None:
                first = index
            elif not removed and first is not None:
                runs.append((first, index))
                first = None
        return [run for run in runs if run[0] > 0]

    @torch.no_grad()
    def write(self, network: nn.Module, plan: PruningPlan) -> None:
        """The network's layers before removed runs have the maps in their weights, for good.

        Args:
            network: From which the plan's units were removed; it is changed in place.
            plan: Units that each group keeps.
        """
        for name, mapped in self.of(plan.kept).items():
            layer = network.get_submodule(name)
            for tensor in (layer.get_parameter("weight"), getattr(layer, "bias", None)):
                if tensor is not None:
                    tensor.copy_(mapped.to(tensor) @ tensor)

    def _map(self, first: int, last: int) -> Tensor:
        key = first, last
        if key not in self._maps:
            added = (self._streams[first] - self._streams[first - 1]).double()
            missing = (self._streams[last] - self._streams[first]).double()
            gram = added.T @ added
            square = gram.diagonal().clone()
            gram.diagonal().add_(self._ridge * square + 1e-12 * square.mean().clamp(min=1e-30))
            change = torch.linalg.solve(gram, added.T @ missing).T
            self._maps[key] = (change + torch.eye(len(change), dtype=change.dtype, device=change.device)).float()
            while len(self._maps) > max(1, CACHED_BYTES // self._maps[key].nbytes):
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]


def replacements(
    model: nn.Module, structure: Structure, role: Role, *, forward: Forward, settings: ReplaceMe
) -> Replacements:
    """The maps for all runs of sublayers that plans may remove.

    Args:
        model: The dense network, in eval mode.
        structure: Its groups, with whole attentions, FFNs or blocks among them.
        role: The calibration samples.
        forward: (network, inputs) → outputs: how the network is called.
        settings: How they are solved for.

    Raises:
        ValueError: The structure removes no sublayer, or the network's can't be merged into the ones before them.
    """
    family = _mergeable(model, structure)
    outputs = [f"{block}.{part}" for block in structure.stages for part in (family.attention_output, family.ffn_output)]
    removed_by = [
        frozenset(
            index
            for index, group in enumerate(structure.groups)
            if any(holds(skip.module, name) for skip in group.skips)
        )
        for name in outputs
    ]
    streams = _streams(model, structure.stages, family, role, forward=forward, wanted=settings.rows)
    return Replacements(outputs, removed_by, streams, ridge=settings.ridge)


def _mergeable(model: nn.Module, structure: Structure) -> Family:
    name, kind = "repair=replace_me", model_type(model)
    if not any(group.skips for group in structure.groups):
        raise ValueError(f"{name} makes up for whole sublayers; set structure.prune=[blocks] or [attention,ffn]")
    if any(group.compared or group.coded for group in structure.groups):
        raise ValueError(
            f"{name} changes all weights of the layer before a removed sublayer, so that none would be zero, or one of "
            "few values; leave weights, N:M and structure.bits out, or take another repair"
        )
    family = FAMILIES.get(kind or "")
    if family is None or not family.pre_norm or len(family.skip_ffn) > 2 or family.experts is not None:
        raise ValueError(
            f"{name} merges a map into what the sublayer before adds to the stream. In a {kind} model a norm stands "
            "between the two, or experts add to it; take another repair, such as repair=none"
        )
    return family


@torch.no_grad()
def _streams(
    model: nn.Module, stages: Sequence[str], family: Family, role: Role, *, forward: Forward, wanted: int
) -> Tensor:
    """The stream before every sublayer and behind the last one, at random positions [sublayers + 1, rows, features]."""
    heard: list[Tensor] = []

    def hear(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        heard.append(arguments[0] if arguments else next(iter(named.values())))

    generator = torch.Generator().manual_seed(0)  # the same rows for all seeds, which can share what they judge
    each, rows = -(-wanted // len(role)), []  # positions of every sample
    with ExitStack() as hooks, evaluating(model):
        for stage in stages:
            for name in (stage, f"{stage}.{family.skip_ffn[0][0]}"):
                hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(hear, with_kwargs=True))
        last = model.get_submodule(stages[-1])
        hooks.enter_context(last.register_forward_hook(lambda _, __, output: heard.append(first_outputs(output))))
        for inputs, _ in batches(role, BATCH):
            heard.clear()
            forward(model, inputs)
            flat = [stream.flatten(0, -2) for stream in heard]
            quota = each * len(heard[0])
            index = torch.randperm(len(flat[0]), generator=generator)[:quota].to(flat[0].device)
            rows.append(torch.stack([stream[index].float() for stream in flat]))
    return torch.cat(rows, dim=1)[:, :wanted]
