"""How large a unit's activations are on the calibration samples (compare Hu et al., arXiv 1607.03250)."""

import torch
from torch import Tensor, nn

from autoprune.importance.criterion import Scores
from autoprune.importance.units import readers
from autoprune.structure.edit import evaluating
from autoprune.structure.groups import Member, Structure
from autoprune.task.task import Loss, Role


@torch.no_grad()
def activation(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    generator: torch.Generator,
    order: float,
    batch_size: int,
) -> Scores:
    """Scores a unit by its mean absolute activation where it is read, added up over its readers.

    Where it is read is behind BatchNorm and the activation function, so a unit that a ReLU silences scores nothing.
    order: 1 for the mean absolute value, 2 for the root mean square.
    """
    if order <= 0:
        raise ValueError(f"the order of a mean must be positive, got {order}; 1 and 2 are usual")
    means = _mean_powers(model, structure, role, order=order, batch_size=batch_size)
    scores = {}
    for group in structure.groups:
        sizes = [_of_units(means[m.layer], layer, m).pow(1 / order) for layer, m in readers(model, group)]
        scores[group.name] = torch.stack(sizes).sum(dim=0).cpu()
    return scores


def _mean_powers(
    model: nn.Module, structure: Structure, role: Role, *, order: float, batch_size: int
) -> dict[str, Tensor]:
    """Reader → the mean of |activation|^order of each of its inputs [inputs], over samples and positions."""
    means: dict[str, Tensor] = {}

    def record(name: str, layer: nn.Module, activations: Tensor) -> None:
        powers = activations.float().abs().pow(order).movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        share = powers.mean(dim=1) * (len(activations) / len(role))
        means[name] = means[name] + share if name in means else share

    layers = {member.layer: layer for group in structure.groups for layer, member in readers(model, group)}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, arguments, name=name: record(name, layer, arguments[0]))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            for batch in role.inputs.split(batch_size):
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return means


def _of_units(values: Tensor, layer: nn.Module, member: Member) -> Tensor:
    """The mean of the values of the inputs [inputs] that belong to each unit, [units]."""
    if getattr(layer, "groups", 1) > 1:  # a grouped convolution's inputs are counted within one of its groups
        values = values.unflatten(0, (layer.groups, -1)).mean(dim=0)
    return values[torch.from_numpy(member.positions).to(values.device)].mean(dim=1)
