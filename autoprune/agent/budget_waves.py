"""The budget as sines and cosines beside itself, so that a policy can tell near budgets apart.

A network that reads one small number is smooth in it, and can make for 40 % of the MACs no other plan than one between
those for 30 and 50 % (arXiv 2006.10739).
"""

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor


class BudgetWaves(BaseFeaturesExtractor):
    """What is observed [batch, features], whose last feature is the budget as a share, and its waves behind it.

    Args:
        observation_space: Of the environment, one row.
        waves: How many frequencies, of 1/2, 1, 3/2, … periods between 0 and the dense network; at least 1.
    """

    def __init__(self, observation_space: spaces.Box, waves: int) -> None:
        super().__init__(observation_space, observation_space.shape[0] + 2 * waves)
        self._angles = torch.pi * torch.arange(1, waves + 1)

    def forward(self, observed: Tensor) -> Tensor:
        """Returns [batch, features + 2 · waves]."""
        angles = observed[:, -1:] * self._angles
        return torch.cat([observed, angles.sin(), angles.cos()], dim=1)
