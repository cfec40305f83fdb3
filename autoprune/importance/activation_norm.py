"""Activations times the weights that read them: of single weights this is Wanda (Sun et al., arXiv 2306.11695)."""

import torch
from torch import Tensor, nn

from autoprune.importance.activation import mean_powers
from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.expert_scores import ExpertScore, expert_scores
from autoprune.importance.unit_weights import by_weights, compared_weight, readers
from autoprune.ranges import Count


@torch.no_grad()
def activation_norm(
    given: CriterionInputs, *, batch_size: Count, experts: ExpertScore | None = None
) -> dict[str, Tensor]:
    """Scores an input by rms(xᵢ)·‖W[:, i]‖: how much of a layer's outputs it makes, were inputs uncorrelated.

    A unit of several inputs (a head) scores the root of the sum of their squares, and the sum over its readers; a
    single weight |W[o, i]|·rms(xᵢ).

    Args:
        given: The network, its groups and the calibration samples.
        batch_size: Samples in one forward pass, at least 1.
        experts: What whole experts are scored by: "outputs", how much of the layer's outputs they make, or "tokens",
            how many tokens the router hands them; None: by their outputs.
    """
    model, groups = given.model, given.structure.groups
    names = [matrix.layer for group in groups for matrix in group.compared]
    names += [member.layer for group in groups for _, member in readers(model, group)]
    squares = mean_powers(given, names, order=2, batch_size=batch_size)
    scores = expert_scores(
        model, given.structure, given.role, forward=given.forward, batch_size=batch_size, by=experts or "outputs"
    )
    for group in groups:
        if group.compared:
            name = group.compared[0].layer
            rms = _of_weights(squares[name].sqrt(), model.get_submodule(name))
            scores[group.name] = (compared_weight(model, group).float().abs() * rms).cpu()
        elif group.members and group.name not in scores:
            energies = [(_energies(squares[m.layer], layer), m) for layer, m in readers(model, group)]
            norms = [e[torch.from_numpy(m.positions).to(e.device)].sum(dim=1).sqrt() for e, m in energies]
            scores[group.name] = torch.stack(norms).sum(dim=0).cpu() if norms else by_weights(model, group)
    return scores


def _of_weights(values: Tensor, layer: nn.Module) -> Tensor:
    """The values of the inputs [inputs] that a matrix's weights read, [outputs or 1, inputs · kernel]."""
    weight, groups = layer.get_parameter("weight"), getattr(layer, "groups", 1)
    rows: Tensor = values.unflatten(0, (groups, -1)).repeat_interleave(weight[0, 0].numel(), dim=1)
    return rows.repeat_interleave(len(weight) // groups, dim=0) if groups > 1 else rows


def _energies(squares: Tensor, layer: nn.Module) -> Tensor:
    """Mean square × squared norm of its weights, for each input, of a convolution's groups added up [inputs]."""
    weight = layer.get_parameter("weight").float()
    norms = weight.square().reshape(*weight.shape[:2], -1).sum(dim=2)
    groups = getattr(layer, "groups", 1)
    energies: Tensor = squares.unflatten(0, (groups, -1)) * norms.unflatten(0, (groups, -1)).sum(dim=1)
    return energies.sum(dim=0)
