"""Editing a network by a plan: `masked` zeroes units in place for a while, `shrink` returns a smaller network."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from autoprune.plan import PruningPlan
from autoprune.structure.block_sparse import install_pattern
from autoprune.structure.groups import Axis, Group, Structure
from autoprune.structure.pretrained_guard import refuse_save_pretrained, tensor_shapes
from autoprune.structure.skipped_modules import Skipped, patched_forward

# group → its units [units], most important first; of a group whose units are places of a comparison, the place of every
# weight of its matrix within its comparison [outputs, inputs], 0 first, int16; of a group of key blocks it says nothing
Ranking = Mapping[str, Tensor]
Kept = Mapping[tuple[str, Axis], Tensor]  # (layer, axis) → the entries that stay [entries], ascending


def shrink(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> nn.Module:
    """A copy of the network from which all but each group's best units are physically removed."""
    small = copy.deepcopy(model)
    layers = dict(small.named_modules())
    for (name, axis), entries in kept_entries(structure, plan, ranking).items():
        layer = layers[name]
        for key, dim in tensor_axes(layer, axis):
            old = getattr(layer, key)
            new = old.detach().index_select(dim, entries.to(old.device))
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            setattr(layer, key, new)
        for attribute, size in widths(layer, axis, len(entries)).items():
            setattr(layer, attribute, size)
    for group, kept in partly(structure, plan):
        for matrix in group.compared:
            weight = layers[matrix.layer].get_parameter("weight")
            weight.data = weight.data * (ranking[group.name].to(weight.device) < kept)
        for known in group.attributes:
            setattr(layers[known.module], known.name, known.per_unit * kept)
        for pattern in group.patterns:
            install_pattern(layers[pattern.module], pattern, kept)
        for skip in group.skips if kept == 0 else ():
            small.set_submodule(skip.module, Skipped(skip.returns))
    number_caches(small)
    refuse_save_pretrained(small, dense=tensor_shapes(model))
    return small


def partly(structure: Structure, plan: PruningPlan) -> Iterator[tuple[Group, int]]:
    """The groups that the plan takes units from, each with the number that stays."""
    for group, kept in zip(structure.groups, plan.kept, strict=True):
        if kept < group.units:
            yield group, kept


def number_caches(network: nn.Module) -> None:
    """Attentions count the entries of a key–value cache that they own; those that are left count from 0 again.

    Where attentions are of several kinds, sliding ones among them, each is given the next entry of its own kind.
    """
    if not any(isinstance(module, Skipped) for module in network.modules()):
        return
    owners = [module for module in network.modules() if isinstance(getattr(module, "layer_idx", None), int)]
    kinds = getattr(getattr(network, "config", None), "layer_types", None) or [None] * (
        1 + max((_entry(o) for o in owners), default=0)
    )
    free = {kind: [index for index, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)}
    for module, kind in [(owner, kinds[_entry(owner)]) for owner in owners]:
        module.layer_idx = free[kind].pop(0)  # type: ignore[assignment]


def _entry(owner: nn.Module) -> int:
    return int(owner.layer_idx)  # type: ignore[arg-type]


@contextmanager
def masked(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> Iterator[nn.Module]:
    """Zeroes the removed units in every coupled tensor while the context is open; the weights come back after."""
    layers = dict(model.named_modules())
    saved: list[tuple[Tensor, Tensor]] = []
    masks = ExitStack()
    try:
        with torch.no_grad():
            for (name, axis), entries in kept_entries(structure, plan, ranking).items():
                for key, dim in tensor_axes(layers[name], axis):
                    tensor = getattr(layers[name], key)
                    saved.append((tensor, tensor.clone()))
                    keep = torch.zeros(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
                    keep[entries.to(tensor.device)] = True
                    tensor.mul_(keep.view([-1 if d == dim else 1 for d in range(tensor.ndim)]))
            for group, kept in partly(structure, plan):
                for matrix in group.compared:
                    tensor = layers[matrix.layer].get_parameter("weight")
                    saved.append((tensor, tensor.clone()))
                    tensor.mul_(ranking[group.name].to(tensor.device) < kept)
                for pattern in group.patterns:
                    masks.callback(install_pattern(layers[pattern.module], pattern, kept).remove)
        gone = [skip for group, kept in partly(structure, plan) if kept == 0 for skip in group.skips]
        with patched_forward({layers[skip.module]: Skipped(skip.returns) for skip in gone}):
            yield model
    finally:
        masks.close()
        with torch.no_grad():
            for tensor, values in reversed(saved):
                tensor.copy_(values)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model is in eval mode while the context is open; every module's own flag comes back after."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in flags:
            module.training = training


def kept_entries(structure: Structure, plan: PruningPlan, ranking: Ranking) -> Kept:
    """Which entries stay, for every axis that the plan takes some from."""
    if plan.groups != structure.names:
        raise ValueError(f"the plan is for groups {list(plan.groups)}, but the network's are {list(structure.names)}")
    sizes: dict[tuple[str, Axis], int] = {}
    for layer in structure.layers:
        if layer.kind != "attention":  # which has no tensors of its own
            sizes[layer.name, "out"], sizes[layer.name, "in"] = layer.outputs, layer.inputs
    gone: dict[tuple[str, Axis], list[Tensor]] = {}
    for group, kept in partly(structure, plan):
        for member in group.members:
            if (member.layer, member.axis) in sizes:
                removed = torch.from_numpy(member.positions)[ranking[group.name][kept:].cpu()].flatten()
                gone.setdefault((member.layer, member.axis), []).append(removed)
    kept_by_axis = {}
    for axis_key, removed_entries in gone.items():
        stays = torch.ones(sizes[axis_key], dtype=torch.bool)
        stays[torch.cat(removed_entries)] = False
        kept_by_axis[axis_key] = stays.nonzero().flatten()
    return kept_by_axis


def tensor_axes(layer: nn.Module, axis: Axis) -> list[tuple[str, int]]:
    """The layer's tensors that an edit of `axis` touches, each with the dimension it is cut along."""
    if axis == "in":
        return [("weight", 1)]
    keys = ("weight", "bias", "running_mean", "running_var")
    return [(key, 0) for key in keys if getattr(layer, key, None) is not None]


def widths(layer: nn.Module, axis: Axis, size: int) -> dict[str, int]:
    """The attributes of the layer that must say `size` once `axis` has that many entries."""
    match layer:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            if axis == "in":
                return {"in_channels": size * layer.groups}
            if is_depthwise(layer):
                return {"out_channels": size, "in_channels": size, "groups": size}
            return {"out_channels": size}
        case nn.Linear():
            return {"in_features" if axis == "in" else "out_features": size}
        case nn.modules.batchnorm._BatchNorm():
            return {"num_features": size}
        case nn.PReLU():
            return {"num_parameters": size}
    raise TypeError(f"autoprune cannot slice a {type(layer).__name__}; SLICEABLE lists the types it can")


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.out_channels == layer.in_channels > 1


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SLICEABLE = (*CONVOLUTIONS, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.PReLU)
