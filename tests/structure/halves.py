"""A network without half of its units, checked against the one in which these are masked."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.export.network import load_network, save_network
from autoprune.structure.edit import masked, shrink
from autoprune.structure.groups import Structure
from tests.models import random_ranking


def checked_half(
    network: nn.Module, structure: Structure, x: Tensor, *, folder: Path | None = None, atol: float = 1e-5
) -> nn.Module:
    """Returns the smaller network; it computes what the masked one does, and the same bits once saved and read again.

    Args:
        network: In eval mode.
        structure: Of it.
        x: What the network reads.
        folder: Where it is saved; None: it is not.
        atol: The largest difference between masked and smaller.
    """
    plan, ranking = structure.plan(np.maximum(structure.units // 2, 1)), random_ranking(structure, seed=1)
    with torch.no_grad():
        with masked(network, structure, plan, ranking):
            expected = network(x).clone()
        small = shrink(network, structure, plan, ranking)
        assert torch.allclose(small(x), expected, atol=atol)
        if folder is not None:
            save_network(small, folder, architecture=None)
            assert torch.equal(load_network(folder, model=network)(x), small(x))
    return small
