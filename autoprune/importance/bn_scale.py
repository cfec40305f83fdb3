"""The scales of BatchNorm (network slimming; Liu et al., arXiv 1708.06519)."""

import torch
from torch import Tensor, nn

from autoprune.importance.criterion import CriterionInputs, Importance, Scores
from autoprune.importance.unit_weights import per_unit
from autoprune.structure.groups import Group


@torch.no_grad()
def bn_scale(given: CriterionInputs, *, otherwise: Importance | None) -> dict[str, Tensor]:
    """Scores a unit by |γ|, added up over its group's BatchNorms.

    Args:
        given: The network, its groups and the calibration samples.
        otherwise: The criterion of groups that have no BatchNorm with scales; without it they are an error.
    """
    groups = [group for group in given.structure.groups if group.members or group.compared]
    scales = {group.name: _scales(given.model, group) for group in groups}
    lacking = [name for name, of_group in scales.items() if not of_group]
    if lacking and otherwise is None:
        raise ValueError(
            f"bn_scale needs a BatchNorm with scales in every group, and {lacking} have none; name another criterion "
            "for these (importance.otherwise), leave them whole (task.keep), or use another criterion"
        )
    others: Scores = otherwise(given) if lacking and otherwise is not None else {}
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
