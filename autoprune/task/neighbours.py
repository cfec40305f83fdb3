"""Whether a pruned network's embeddings have the neighbours that the dense one's have, which no cosine says."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.samples import cut
from autoprune.task.task import Role, Task

MOST = 2048  # samples that are compared with each other
BATCH = 64


@torch.no_grad()
def neighbour_agreement(task: Task, network: nn.Module, role: Role) -> dict[str, float]:
    """Measure by name: the share of samples, in [0, 1], whose nearest other sample is the same as in the dense network.

    Of every output that is an embedding, by the cosine; nothing where there is none, or fewer than three samples.

    Args:
        task: The dense network, and how it is called.
        network: A pruned one, in eval mode.
        role: The samples.
    """
    kinds = [kind for kind in task.outputs if kind.kind == "embedding" and kind.weight]
    chosen = role[:MOST]
    if not kinds or len(chosen) < 3:
        return {}
    dense, pruned = (_embeddings(task, each, chosen) for each in (task.model, network))
    return {
        "_".join(["neighbours_as_dense", *([kind.name] if kind.name else [])]): (
            (_nearest(dense[kind.name], kind.dim) == _nearest(pruned[kind.name], kind.dim)).float().mean().item()
        )
        for kind in kinds
    }


def _embeddings(task: Task, network: nn.Module, role: Role) -> dict[str, Tensor]:
    parts = [task.tensors(task.forward(network, batch)) for batch in cut(role.inputs, BATCH)]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def _nearest(embeddings: Tensor, dim: int) -> Tensor:
    """The nearest other sample of each, [N]; of several vectors a sample, by their mean cosine."""
    units = F.normalize(embeddings, dim=dim).flatten(1)
    return (units @ units.T).fill_diagonal_(float("-inf")).argmax(dim=1)
