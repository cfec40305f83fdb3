"""What the loss would change by, to first order, if a unit were removed (Molchanov et al., arXiv 1906.10771)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.importance.criterion import Scores
from autoprune.importance.units import per_unit, readers
from autoprune.structure.edit import evaluating
from autoprune.structure.groups import Structure
from autoprune.task.task import Loss, Role, first_outputs


def taylor(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    generator: torch.Generator,
    batch_size: int,
) -> Scores:
    """Scores a unit by (Σ gradient · weight)² over the weights that read it, averaged over batches of samples.

    To zero the weights that read a unit is to remove it, whether a BatchNorm or an activation stands before them or
    not, so their sum is the first-order change of the loss. Small batches keep opposite changes from cancelling.
    """
    weights = {
        member.layer: layer.get_parameter("weight")
        for group in structure.groups
        for layer, member in readers(model, group)
    }
    scores = {group.name: torch.zeros(group.units) for group in structure.groups}
    with evaluating(model), _differentiable(list(weights.values())):
        for inputs, targets in zip(role.inputs.split(batch_size), role.targets.split(batch_size), strict=True):
            value = loss(first_outputs(model(inputs)), targets)
            gradients = dict(zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True))
            changes = {name: (gradients[name] * weight).detach().float() for name, weight in weights.items()}
            for group in structure.groups:
                shares = [per_unit(changes[m.layer], m, dim=1).sum(dim=1) for _, m in readers(model, group)]
                change = torch.stack(shares).sum(dim=0)
                scores[group.name] += change.square().cpu() * (len(inputs) / len(role))
    return scores


@contextmanager
def _differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    """Gradients reach these weights, frozen or not, while the context is open."""
    flags = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
