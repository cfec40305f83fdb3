"""What the loss would change by, to first order, if a unit were removed (Molchanov et al., arXiv 1906.10771)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.importance.block_influence import with_block_influence
from autoprune.importance.criterion import Scores
from autoprune.importance.layer_inputs import batches
from autoprune.importance.unit_weights import by_weights, compared_weight, per_unit, readers
from autoprune.ranges import Count
from autoprune.structure.edit import evaluating
from autoprune.structure.groups import Structure
from autoprune.task.samples import number_of
from autoprune.task.task import Forward, Loss, Role


def taylor(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
    batch_size: Count,
) -> Scores:
    """Scores a unit by (Σ gradient · weight)² over the weights that read it, averaged over batches of samples.

    To zero the weights that read a unit is to remove it, whether a BatchNorm or an activation stands before them or
    not, so their sum is the first-order change of the loss. Small batches keep opposite changes from cancelling. A
    single weight scores |gradient · weight|, averaged as well. Modules that can be passed over are scored by block
    influence, units that no convolution or linear layer reads by the norms of their weights.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Draws all that is random here.
        batch_size: Samples; of windows of tokens, no more than `batches` lets pass.
    """
    if role.targets is None:
        raise ValueError("importance=taylor needs labels, as its gradients are the loss's; magnitude needs none")
    named = [
        (matrix.layer, model.get_submodule(matrix.layer).get_parameter("weight"))
        for group in structure.groups
        for matrix in group.compared
    ]
    named += [
        (member.layer, layer.get_parameter("weight"))
        for group in structure.groups
        for layer, member in readers(model, group)
    ]
    weights = dict(named)
    scores = {
        group.name: torch.zeros(compared_weight(model, group).shape if group.compared else group.units)
        for group in structure.groups
        if group.compared or group.members
    }
    for inputs, targets in batches(role, batch_size) if weights else ():
        with evaluating(model), _differentiable(list(weights.values())):
            gradients = torch.autograd.grad(loss(forward(model, inputs), targets), list(weights.values()))
        changes = {
            name: gradient.mul_(weight.detach()).float()
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        for group in structure.groups:
            share = number_of(inputs) / len(role)
            if group.compared:
                scores[group.name].add_(changes[group.compared[0].layer].abs_().flatten(1).cpu(), alpha=share)
            elif group.members:
                shares = [per_unit(changes[m.layer], m, dim=1).sum(dim=1) for _, m in readers(model, group)]
                if shares:
                    scores[group.name] += torch.stack(shares).sum(dim=0).square().cpu() * share
    for group in structure.groups:
        if group.members and not any(True for _ in readers(model, group)):
            scores[group.name] = by_weights(model, group)
    return with_block_influence(scores, model, structure, role, forward=forward)


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
