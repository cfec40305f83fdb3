"""Cheap repairs of a pruned network before it is judged; without one the reward is noise (docs/design.md)."""

from typing import Protocol

import torch
from torch import nn

from autoprune.task.task import Role

BATCH = 500


class Repair(Protocol):
    """Two ways to the same end: while candidates are judged, and for good on the network that is handed out."""

    def prepare(self, network: nn.Module) -> None:
        """Makes every candidate that shares this network's layers repair itself in its own forward pass."""
        ...

    def apply(self, network: nn.Module, calibration: Role) -> None:
        """Repairs the network in place, from the calibration role."""
        ...


class NoRepair:
    """Judges the pruned weights as they are."""

    def prepare(self, network: nn.Module) -> None:
        pass

    def apply(self, network: nn.Module, calibration: Role) -> None:
        pass


class BatchNormRepair:
    """BatchNorm's statistics measured on the pruned network (EagleEye, arXiv 2007.02491).

    A candidate normalises by the statistics of the batch it is judged on, which costs no extra pass; the network that
    is handed out gets the statistics of the calibration role.
    """

    def prepare(self, network: nn.Module) -> None:
        for layer in _batch_norms(network):
            layer.__dict__["running_mean"] = layer.__dict__["running_var"] = None

    @torch.no_grad()
    def apply(self, network: nn.Module, calibration: Role) -> None:
        layers = _batch_norms(network)
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average over the batches
            layer.train()
        for batch in calibration.inputs.split(BATCH):
            network(batch)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
