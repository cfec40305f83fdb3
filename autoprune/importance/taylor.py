"""What the loss would change by, to first order, if a unit were removed (Molchanov et al., arXiv 1906.10771)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.layer_inputs import batches
from autoprune.importance.unit_weights import by_weights, compared_weight, per_unit, readers
from autoprune.ranges import Count
from autoprune.structure.edit import differentiable, evaluating
from autoprune.task.given_functions import with_gradient
from autoprune.task.samples import number_of


def taylor(given: CriterionInputs, *, batch_size: Count) -> dict[str, Tensor]:
    """Scores a unit by (Σ gradient · weight)² over the weights that read it, averaged over batches of samples.

    To zero the weights that read a unit is to remove it, whether a BatchNorm or an activation stands before them or
    not, so their sum is the first-order change of the loss. Small batches keep opposite changes from cancelling. A
    single weight scores |gradient · weight|, averaged as well; units that no convolution or linear layer reads are
    scored by the norms of their weights.

    Args:
        given: The network, its groups and the calibration samples.
        batch_size: Samples; of windows of tokens, no more than `batches` lets pass.
    """
    model, groups = given.model, given.structure.groups
    if given.role.targets is None:
        raise ValueError("importance=taylor needs labels, as its gradients are the loss's; magnitude needs none")
    named = [
        (matrix.layer, model.get_submodule(matrix.layer).get_parameter("weight"))
        for group in groups
        for matrix in group.compared
    ]
    named += [
        (member.layer, layer.get_parameter("weight")) for group in groups for layer, member in readers(model, group)
    ]
    weights = dict(named)
    scores = {
        group.name: torch.zeros(compared_weight(model, group).shape if group.compared else group.units)
        for group in groups
        if group.compared or group.members
    }
    for inputs, targets in batches(given.role, batch_size) if weights else ():
        with evaluating(model), differentiable(list(weights.values())):
            loss = with_gradient(given.loss(given.forward(model, inputs), targets))
            of = list(weights.values())
            gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, of, allow_unused=True)
        changes = {  # of a head that the loss does not read, 0
            name: torch.zeros_like(weight) if gradient is None else gradient.mul_(weight.detach()).float()
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        for group in groups:
            share = number_of(inputs) / len(given.role)
            if group.compared:
                scores[group.name].add_(changes[group.compared[0].layer].abs_().flatten(1).cpu(), alpha=share)
            elif group.members:
                shares = [per_unit(changes[m.layer], m, dim=1).sum(dim=1) for _, m in readers(model, group)]
                if shares:
                    scores[group.name] += torch.stack(shares).sum(dim=0).square().cpu() * share
    for group in groups:
        if group.members and not any(True for _ in readers(model, group)):
            scores[group.name] = by_weights(model, group)
    return scores
