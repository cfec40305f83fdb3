"""One network for all groups: what it learns of one is known of the others, and it fits any number of them."""

import itertools
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn


class SharedPolicy(ActorCriticPolicy):
    """An actor and a critic that read every group's features by the same weights.

    Observations [groups · features + 1] are the groups' features one after the other and the budget; a group is read
    beside the mean of all. Actions [groups]. group_bias: each group also has a number of its own that is added to its
    action, which can say what features do not, and means nothing on another network.
    """

    def __init__(self, *arguments: Any, group_bias: bool = False, **options: Any) -> None:
        self._group_bias = group_bias
        super().__init__(*arguments, **options)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        groups, width = self.mlp_extractor.groups, self.mlp_extractor.width
        self.action_net = _Heads(groups, width, bias=self._group_bias)
        if not self._group_bias:  # nothing is a group's own then, how widely it explores neither
            self.log_std = nn.Parameter(torch.full((1,), self.log_std_init))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _build_mlp_extractor(self) -> None:
        groups = _groups(self.observation_space, self.action_space)
        hidden: Any = self.net_arch
        self.mlp_extractor: Any = _GroupNetworks(
            groups, (self.features_dim - 1) // groups, hidden=list(hidden), activation=self.activation_fn
        )


class _GroupNetworks(nn.Module):
    """[batch, groups · features + 1] → the actor's [batch, groups · width] and the critic's [batch, width]."""

    def __init__(self, groups: int, features: int, *, hidden: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.groups, self.features, self.width = groups, features, hidden[-1]
        self.latent_dim_pi, self.latent_dim_vf = groups * self.width, self.width
        self.actor, self.critic = (_layers([2 * features + 1, *hidden], activation) for _ in range(2))

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(flat), self.forward_critic(flat)

    def forward_actor(self, flat: Tensor) -> Tensor:
        values: Tensor = self.actor(self._rows(flat)).flatten(1)
        return values

    def forward_critic(self, flat: Tensor) -> Tensor:
        values: Tensor = self.critic(self._rows(flat)).mean(dim=1)
        return values

    def _rows(self, flat: Tensor) -> Tensor:
        """[batch, groups, 2 · features + 1]: a group's own features, all groups' mean, the budget."""
        own = flat[:, :-1].view(len(flat), self.groups, self.features)
        budget = flat[:, -1:, None].expand(-1, self.groups, 1)
        return torch.cat([own, own.mean(dim=1, keepdim=True).expand_as(own), budget], dim=2)


class _Heads(nn.Module):
    """[batch, groups · width] → [batch, groups]. Begins near 0, so that first actions are the prior plan's."""

    def __init__(self, groups: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.groups = groups
        self.linear = nn.Linear(width, 1)
        nn.init.orthogonal_(self.linear.weight, gain=0.01)
        nn.init.zeros_(self.linear.bias)
        self.bias = nn.Parameter(torch.zeros(groups)) if bias else None

    def forward(self, latent: Tensor) -> Tensor:
        values: Tensor = self.linear(latent.view(len(latent), self.groups, -1)).squeeze(-1)
        return values if self.bias is None else values + self.bias


def _layers(widths: list[int], activation: type[nn.Module]) -> nn.Sequential:
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(part for before, after in pairs for part in (nn.Linear(before, after), activation())))


def _groups(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> int:
    """Raises ValueError where the spaces are not those of whole plans."""
    seen, done = observation_space.shape, action_space.shape
    if seen is None or done is None or len(seen) != 1 or len(done) != 1 or (seen[0] - 1) % done[0] or seen[0] == 1:
        raise ValueError(
            f"one network for all groups reads every group's features and the budget, and acts on whole plans; "
            f"observations are {seen} and actions {done}. Use agent.env.mode=one_shot or edit"
        )
    return int(done[0])
