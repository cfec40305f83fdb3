"""Editing a network by a plan: `masked` zeroes units in place for a while, `shrink` returns a smaller network."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from autoprune.plan import PruningPlan
from autoprune.ranges import check_value
from autoprune.structure.block_sparse import install_pattern
from autoprune.structure.experts import never_chosen
from autoprune.structure.groups import CONFIG, Attribute, Axis, Group, Structure
from autoprune.structure.layer_types import ATTENTIONS, tensor_axes, widths
from autoprune.structure.literal_sizes import LITERAL, lower_literal
from autoprune.structure.narrowed_input import WITHHELD, withhold
from autoprune.structure.pretrained_guard import guard_save_pretrained, tensor_shapes
from autoprune.structure.skipped_modules import Skipped, patched_forward
from autoprune.structure.sliced_attention import slice_attention, slice_encoders
from autoprune.task.copies import copied

# group → its units [units], most important first; of a group whose units are places of a comparison, the place of every
# weight of its matrix within its comparison [outputs, inputs], 0 first, int16; of a group of key blocks it says nothing
Ranking = Mapping[str, Tensor]
Kept = Mapping[tuple[str, Axis], Tensor]  # (layer, axis) → the entries that stay [entries], ascending


def shrink(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> nn.Module:
    """A copy of the network from which all but each group's best units are physically removed.

    Args:
        model: The dense network, which stays as it is.
        structure: Its groups.
        plan: How many units of each group stay.
        ranking: Group → its units, most important first.
    """
    _check(model, structure, plan, ranking)
    small = copied(model)
    _cut(small, structure, plan, ranking, _Undo())
    layers = dict(small.named_modules())
    for group, kept in partly(structure, plan):
        for matrix in group.compared:
            weight = layers[matrix.layer].get_parameter("weight")
            stays = (ranking[group.name].to(weight.device) < kept).view_as(weight)
            weight.data = weight.data.where(stays, 0.0)  # a product would leave -0, which is not 0 in a file
        for pattern in group.patterns:
            install_pattern(layers[pattern.module], pattern, kept)
        for skip in group.skips if kept == 0 else ():
            small.set_submodule(skip.module, Skipped(skip.returns))
    number_caches(small)
    guard_save_pretrained(small, dense=tensor_shapes(model))
    return small


@contextmanager
def temporarily_shrunk(
    model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking
) -> Iterator[nn.Module]:
    """The network itself is the smaller one while the context is open, which saves copying it; it comes back after.

    Args:
        model: The dense network, cut in place until the context ends.
        structure: Its groups.
        plan: How many units of each group stay.
        ranking: Group → its units, most important first.
    """
    undo = _Undo()
    try:
        _cut(model, structure, plan, ranking, undo)
        yield model
    finally:
        undo()


class _Undo(ExitStack):
    """Sets attributes, and sets them back when called."""

    def set(self, owner: nn.Module, name: str, value: object) -> None:
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def __call__(self) -> None:
        self.close()


def _cut(network: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking, undo: "_Undo") -> None:
    """Takes the entries that go from every axis of the network, in place."""
    entries_of = kept_entries(structure, plan, ranking)
    layers = dict(network.named_modules())
    # from the layers as they are: a grouped convolution that keeps one channel in each group would look depthwise
    sizes = [
        (name, attribute, size)
        for (name, axis), entries in entries_of.items()
        if not isinstance(layers[name], ATTENTIONS)
        for attribute, size in widths(layers[name], axis, len(entries)).items()
    ]
    for name in dict.fromkeys(name for name, _ in entries_of):
        if isinstance(layers[name], nn.MultiheadAttention):
            for holder, child in slice_attention(network, name):
                undo.callback(holder._modules.__setitem__, child, layers[name])
    for encoder in slice_encoders(network):
        undo.callback(setattr, encoder, "use_nested_tensor", True)
    layers = dict(network.named_modules())
    cut: dict[tuple[int, int, bytes], Tensor] = {}  # so that tensors that several layers hold stay one
    whole = []  # tensors that were cut, which must live as long as their ids are keys
    for (name, axis), entries in entries_of.items():
        key_of = entries.numpy().tobytes()
        for tensor_axis in tensor_axes(layers[name], axis):
            old = tensor_axis.tensor
            key = id(old), tensor_axis.dim, key_of
            if key not in cut:
                new = old.detach().index_select(tensor_axis.dim, tensor_axis.rows(entries).to(old.device))
                cut[key] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                whole.append(old)
            undo.set(tensor_axis.owner, tensor_axis.key, cut[key])
    for name, attribute, size in sizes:
        undo.set(layers[name], attribute, size)
    for group, kept in partly(structure, plan):
        for number in group.attributes:
            if number.name.startswith(f"{CONFIG}."):
                undo.set(layers[number.module], CONFIG, copy.copy(layers[number.module].config))
            undo.callback(lower, layers[number.module], number, removed=kept - group.units)
            lower(layers[number.module], number, removed=group.units - kept)


def lower(module: nn.Module, number: Attribute, *, removed: int) -> None:
    """Takes what so many removed units account for off the module's number, which may stand in a list: "sizes[0]".

    Args:
        module: The module that has the number.
        number: Its name, and what a unit accounts for.
        removed: Units; fewer than 0 put them back.
    """
    if number.name == WITHHELD:
        withhold(module, -number.per_unit * removed)
        return
    if number.name.startswith(f"{LITERAL}["):
        lower_literal(module, number.name, number.per_unit * removed)
        return
    owner, dot, name = number.name.rpartition(".")
    name, bracket, index = name.partition("[")
    holder = getattr(module, owner) if dot else module
    value = getattr(holder, name)
    if not bracket:
        setattr(holder, name, value - number.per_unit * removed)
        return
    numbers = list(value)
    numbers[int(index[:-1])] -= number.per_unit * removed
    setattr(module, name, type(value)(numbers))


def partly(structure: Structure, plan: PruningPlan) -> Iterator[tuple[Group, int]]:
    """The groups that the plan takes units from, each with the number that stays.

    Args:
        structure: The groups, in the plan's order.
        plan: How many units of each group stay.
    """
    for group, kept in zip(structure.groups, plan.kept, strict=True):
        if kept < group.units:
            yield group, kept


def number_caches(network: nn.Module) -> None:
    """Attentions count the entries of a key–value cache that they own; those that are left count from 0 again.

    Where attentions are of several kinds, sliding ones among them, each is given the next entry of its own kind.
    """
    if not any(isinstance(module, Skipped) for module in network.modules()):
        return
    owners = [
        module
        for name, module in network.named_modules()
        # blocks of some types have the number too, and none of the entries
        if isinstance(getattr(module, "layer_idx", None), int) and not name.rpartition(".")[2].isdigit()
    ]
    kinds = getattr(getattr(network, "config", None), "layer_types", None) or [None] * (
        1 + max((_entry(o) for o in owners), default=0)
    )
    free = {kind: [index for index, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)}
    for module, kind in [(owner, kinds[_entry(owner)]) for owner in owners]:
        module.layer_idx = free[kind].pop(0)


def _entry(owner: nn.Module) -> int:
    return int(owner.layer_idx)  # type: ignore[arg-type]


@contextmanager
def masked(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> Iterator[nn.Module]:
    """Zeroes the removed units in every coupled tensor while the context is open; the weights come back after.

    Args:
        model: The dense network, changed in place until the context ends.
        structure: Its groups.
        plan: How many units of each group stay.
        ranking: Group → its units, most important first.
    """
    _check(model, structure, plan, ranking)
    layers = dict(model.named_modules())
    saved: list[tuple[Tensor, Tensor]] = []
    masks = ExitStack()
    try:
        with torch.no_grad():
            filled = {(m.layer, m.axis): m.filled for group in structure.groups for m in group.members if m.filled}
            for (name, axis), entries in kept_entries(structure, plan, ranking).items():
                for tensor_axis in tensor_axes(layers[name], axis):
                    tensor = tensor_axis.tensor
                    saved.append((tensor, tensor.clone()))
                    keep = torch.zeros(tensor.shape[tensor_axis.dim], dtype=torch.bool, device=tensor.device)
                    keep[tensor_axis.rows(entries).to(tensor.device)] = True
                    keep = keep.view([-1 if d == tensor_axis.dim else 1 for d in range(tensor.ndim)])
                    tensor.copy_(tensor.where(keep, filled.get((name, axis), 0.0)))
            for group, kept in partly(structure, plan):
                for matrix in group.compared:
                    tensor = layers[matrix.layer].get_parameter("weight")
                    saved.append((tensor, tensor.clone()))
                    tensor.mul_((ranking[group.name].to(tensor.device) < kept).view_as(tensor))
                for pattern in group.patterns:
                    masks.callback(install_pattern(layers[pattern.module], pattern, kept).remove)
                if group.routing is not None:
                    router = layers[group.routing.module]
                    masks.enter_context(never_chosen(router, ranking[group.name][kept:]))
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
    """The model is in eval mode while the context is open; every module's own flag comes back after.

    PyTorch's fused path for transformer encoders is off meanwhile, as it goes past the modules and their hooks.
    """
    flags = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield model
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in flags:
            module.training = training


@contextmanager
def differentiable(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Gradients reach these parameters, frozen or not, while the context is open."""
    flags = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def _check(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> None:
    """Network, structure, plan and ranking are those of one another."""
    for value, kind, name in (
        (model, nn.Module, "the model"), (structure, Structure, "the structure"), (plan, PruningPlan, "the plan"),
        (ranking, Mapping, "the ranking"),
    ):  # fmt: skip
        check_value(value, kind, name)
    _check_groups(structure, plan)
    modules = dict(model.named_modules())
    lacking = sorted({member.layer for group in structure.groups for member in group.members} - modules.keys())
    if lacking:
        raise ValueError(f"the structure is another network's: this {type(model).__name__} has no {lacking[0]!r}")
    for group, _ in partly(structure, plan):
        if group.in_given_order:  # of which a ranking says nothing
            continue
        units = ranking.get(group.name)
        if not isinstance(units, Tensor):
            raise ValueError(f"the ranking of group {group.name!r} must be a tensor of its units, got {units!r}")
        if not group.compared and not torch.equal(units.cpu().sort().values, torch.arange(group.units)):
            last = group.units - 1
            raise ValueError(f"the ranking of group {group.name!r} must hold each of its units 0 to {last} once")


def _check_groups(structure: Structure, plan: PruningPlan) -> None:
    if plan.groups != structure.names:
        raise ValueError(f"the plan is for groups {list(plan.groups)}, but the network's are {list(structure.names)}")


def kept_entries(structure: Structure, plan: PruningPlan, ranking: Ranking) -> Kept:
    """Which entries stay, for every axis that the plan takes some from.

    Args:
        structure: The groups.
        plan: How many units of each group stay.
        ranking: Group → its units, most important first.

    Returns:
        Layer and axis → the entries that stay, ascending.
    """
    _check_groups(structure, plan)
    mixing = {layer.name for layer in structure.layers if layer.kind == "attention"}  # which have no tensors
    stays: dict[tuple[str, Axis], Tensor] = {}
    for group, kept in partly(structure, plan):
        for member in group.members:
            if member.layer not in mixing:
                removed = torch.from_numpy(member.positions)[ranking[group.name][kept:].cpu()].flatten()
                key = member.layer, member.axis
                stays.setdefault(key, torch.ones(member.size, dtype=torch.bool))[removed] = False
    return {key: mask.nonzero().flatten() for key, mask in stays.items()}
