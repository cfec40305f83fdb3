"""ResNet-20 at a twentieth of its bytes, by the same recipe as the LeNets."""

from dataclasses import replace
from typing import Any

from autoprune.deep_compression import CompressionSettings, prune_gradually
from autoprune.task.shipped import fashion_resnet20
from autoprune.task.task import Roles
from experiments.deep_compression.lenets import Judged, cell

SETTINGS = CompressionSettings(density=0.15, bits=4, convolution_bits=4, pruning_steps=900, centroid_steps=200)


def resnet_cell(roles: Roles, *, seed: int) -> dict[str, Any]:
    """Returns what the file of the shipped network comes to.

    Args:
        roles: Fashion-MNIST; the network was trained on no image of its search and test roles.
        seed: Of training while weights go.
    """
    task = replace(fashion_resnet20(), data=roles)
    pruned = prune_gradually(task, SETTINGS, seed=seed)
    return {"network": task.name, "seed": seed, **cell(Judged(task), pruned, SETTINGS, seed=seed)}
