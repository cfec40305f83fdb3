"""The scales of BatchNorm (network slimming; Liu et al., arXiv 1708.06519)."""

import torch
from torch import Tensor, nn

from autoprune.importance.criterion import Importance, Scores
from autoprune.importance.unit_weights import per_unit
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Forward, Loss, Role


@torch.no_grad()
def bn_scale(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
    otherwise: Importance | None,
) -> Scores:
    """Scores a unit by |γ|, added up over its group's BatchNorms.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Draws all that is random here.
        otherwise: The criterion of groups that have no BatchNorm with scales; without it they are an error.
    """
    scales = {group.name: _scales(model, group) for group in structure.groups}
    lacking = [name for name, of_group in scales.items() if not of_group]
    if lacking and otherwise is None:
        raise ValueError(
            f"bn_scale needs a BatchNorm with scales in every group, and {lacking} have none; name another criterion "
            "for these (importance.otherwise), leave them whole (task.keep), or use another criterion"
        )
    others: Scores = {}
    if lacking and otherwise is not None:
        others = otherwise(model, structure, role, loss=loss, forward=forward, generator=generator)
    return {
        name: torch.stack(of_group).sum(dim=0).cpu() if of_group else others[name] for name, of_group in scales.items()
    }


def _scales(model: nn.Module, group: Group) -> list[Tensor]:
    layers = [(model.get_submodule(member.layer), member) for member in group.members]
    return [
        per_unit(layer.weight.float().abs(), member, dim=0).sum(dim=1)
        for layer, member in layers
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.weight is not None
    ]
