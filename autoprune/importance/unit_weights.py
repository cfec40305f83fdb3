"""What belongs to a unit: its share of a tensor, the layers that write it and the layers that read it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autoprune.structure.groups import Axis, Group, Member, Structure
from autoprune.structure.layer_types import CONVOLUTIONS, tensor_axes
from autoprune.structure.weighted_gradients import as_real

WRITES, READS = ("out", "head", "group"), ("in", "key", "value", "second")


def unit_weights(model: nn.Module, group: Group, axis: Axis) -> list[Tensor]:
    """The weights that write ("out") or read ("in") the group's units, by layer [units, entries]; complex ones as real.

    Layers are convolutions, depthwise ones among the writers, linear and recurrent ones, embeddings and attentions.

    Args:
        model: The dense network, in eval mode.
        group: The group.
        axis: "out", what is written, or "in", what is read.
    """
    weights = []
    for member in group.members:
        if _is_of(model.get_submodule(member.layer), member.axis, axis):
            for tensor_axis in tensor_axes(model.get_submodule(member.layer), member.axis):
                if tensor_axis.tensor.ndim > 1:
                    parts = tensor_axis.tensor.detach().chunk(tensor_axis.runs, dim=tensor_axis.dim)
                    own = torch.cat([per_unit(part, member, dim=tensor_axis.dim) for part in parts], dim=1)
                    weights.append(as_real(own).flatten(1))
    return weights


def _is_of(layer: nn.Module, own: Axis, axis: Axis) -> bool:
    """Whether an axis of the layer writes ("out") or reads ("in") units; tensors of three dimensions are matrices."""
    parameter, slash, dim = own.rpartition("/")
    if not slash:
        return own in (WRITES if axis == "out" else READS)
    last = 2 if getattr(layer, parameter).ndim == 3 else 1
    return (int(dim) == last) == (axis == "in") and int(dim) <= last


def readers(model: nn.Module, group: Group) -> Iterator[tuple[nn.Module, Member]]:
    """The convolutions and linear layers that the units are inputs of; to zero these weights is to remove the units.

    Recurrent layers, attentions and transposed convolutions, which read them otherwise, are not among them.

    Args:
        model: The dense network, in eval mode.
        group: The group.
    """
    for member in group.members:
        layer = model.get_submodule(member.layer)
        if member.axis == "in" and is_plain_reader(layer):
            yield layer, member


def is_plain_reader(layer: nn.Module) -> bool:
    """Whether outputs are a matrix [outputs, inputs · kernel] of real numbers times what each position reads."""
    own = next((kind for kind in (*CONVOLUTIONS, nn.Linear) if isinstance(layer, kind)), None)
    if own is None or parametrize.is_parametrized(layer) or layer.get_parameter("weight").is_complex():
        return False
    computed = ("forward", "_conv_forward")  # a subclass may make another weight of its own at every call
    return all(getattr(type(layer), name, None) is getattr(own, name, None) for name in computed)


def by_weights(model: nn.Module, group: Group) -> Tensor:
    """Scores for units that none of `readers` reads: the norms of the weights that write them, [units].

    Args:
        model: The dense network, in eval mode.
        group: The group.
    """
    norms = [torch.linalg.vector_norm(weight.float(), dim=1) for weight in unit_weights(model, group, "out")]
    return torch.stack(norms).sum(dim=0).cpu()


def per_unit(tensor: Tensor, member: Member, *, dim: int) -> Tensor:
    """Each unit's share of a tensor that `member` cuts along `dim`, [units, entries].

    Args:
        tensor: A tensor of the layer.
        member: The axis that the group cuts.
        dim: The dimension of the tensor that is cut.
    """
    positions = torch.from_numpy(member.positions).to(tensor.device)
    return tensor.movedim(dim, 0)[positions].flatten(1)


def compared_weight(model: nn.Module, group: Group) -> Tensor:
    """The matrix [outputs, inputs · kernel] of which the group's single weights go.

    Args:
        model: The dense network, in eval mode.
        group: The group.
    """
    return model.get_submodule(group.compared[0].layer).get_parameter("weight").flatten(1)


def refuse_single_weights(structure: Structure, *, criterion: str, reason: str) -> None:
    """Raises ValueError where a group compares single weights, which the criterion cannot score.

    Args:
        structure: The network's groups and layers.
        criterion: The criterion's name.
        reason: Why it cannot, to go on with after “as”.
    """
    groups = [group.name for group in structure.groups if group.compared]
    if groups:
        raise ValueError(
            f"{criterion} cannot score single weights, as {reason}, and {len(groups)} groups compare some (the first "
            f"is {groups[0]!r}); use wanda, sparse_gpt, taylor or magnitude"
        )
