"""How large a unit's activations are on the calibration samples (compare Hu et al., arXiv 1607.03250)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.layer_inputs import first_readers, read_inputs
from autoprune.importance.unit_weights import by_weights, readers, refuse_single_weights
from autoprune.ranges import Count, Positive, checked
from autoprune.structure.groups import Member


@checked
@torch.no_grad()
def activation(given: CriterionInputs, *, order: Positive, batch_size: Count) -> dict[str, Tensor]:
    """Scores a unit by its mean absolute activation where it is read, added up over its readers.

    Where it is read is behind BatchNorm and the activation function, so a unit that a ReLU silences scores nothing.
    Units that no convolution or linear layer reads are scored by the norms of their weights.

    Args:
        given: The network, its groups and the calibration samples.
        order: 1 for the mean absolute value, 2 for the root mean square.
        batch_size: Samples in one forward pass, at least 1.

    Raises:
        ValueError: Single weights.
    """
    model, groups = given.model, given.structure.groups
    refuse_single_weights(given.structure, criterion="activation", reason="all that read an input would score the same")
    names = [member.layer for group in groups for _, member in readers(model, group)]
    means = mean_powers(given, names, order=order, batch_size=batch_size)
    scores = {}
    for group in groups:
        if group.members:
            sizes = [_of_units(means[m.layer], layer, m).pow(1 / order) for layer, m in readers(model, group)]
            scores[group.name] = torch.stack(sizes).sum(dim=0).cpu() if sizes else by_weights(model, group)
    return scores


def mean_powers(
    given: CriterionInputs, names: Iterable[str], *, order: Positive, batch_size: Count
) -> dict[str, Tensor]:
    """Layer → the mean of |activation|^order of each of its inputs [inputs], over samples and positions.

    Args:
        given: The network, its groups and the calibration samples.
        names: Layers, by qualified name.
        order: Of the norm: 1 for absolute values, 2 for root mean squares.
        batch_size: Samples in one forward pass, at least 1.
    """
    model, role, forward = given.model, given.role, given.forward
    names = tuple(dict.fromkeys(names))
    first = first_readers(model, names, role, forward=forward)
    means: dict[str, Tensor] = {}

    def add(name: str, layer: nn.Module, activations: Tensor) -> None:
        powers = activations.float().abs().pow(order).movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        share = powers.mean(dim=1) * (len(activations) / len(role))
        means[name] = means[name] + share if name in means else share

    read_inputs(model, tuple(dict.fromkeys(first.values())), role, forward=forward, batch_size=batch_size, on_input=add)
    return {name: means[first[name]] for name in names}


def _of_units(values: Tensor, layer: nn.Module, member: Member) -> Tensor:
    """The mean of the values of the inputs [inputs] that belong to each unit, [units]."""
    if getattr(layer, "groups", 1) > 1:  # a grouped convolution's inputs are counted within one of its groups
        values = values.unflatten(0, (layer.groups, -1)).mean(dim=0)
    return values[torch.from_numpy(member.positions).to(values.device)].mean(dim=1)
