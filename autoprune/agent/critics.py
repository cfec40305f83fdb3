"""Many critics for little more than the price of one: an ensemble whose members are computed together."""

import itertools
from typing import Any

import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

CAUTION = 1.0  # an actor without it goes to corners of the action box, where all members extrapolate


class EnsembleCritic(ContinuousCritic):
    """`n_critics` networks of one shape, each with a linear path beside its hidden layers, as one batched product.

    Stable-Baselines3's own critic computes them one after the other, which for five networks of a few thousand weights
    takes five times as long. Members begin with weights of their own, and disagree most where they have seen least.
    """

    def __init__(self, net_arch: list[int], activation_fn: type[nn.Module], **options: Any) -> None:
        super().__init__(net_arch=net_arch, activation_fn=activation_fn, **options)
        for name in [name for name, _ in self.named_children() if name.startswith("qf")]:
            delattr(self, name)  # the ones that would be computed one after the other
        self.q_networks = []
        entries = self.features_extractor.features_dim + self.action_space.shape[0]  # type: ignore[index]
        widths = [entries, *net_arch]
        members = self.n_critics
        self.activation = activation_fn()
        self.weights = nn.ParameterList(
            torch.randn(members, before, after) * (1.5 / before) ** 0.5 for before, after in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, width) for width in widths[1:])
        self.last = nn.Parameter(torch.randn(members, widths[-1], 1) * 0.3 / widths[-1] ** 0.5)
        self.linear = nn.Parameter(torch.zeros(members, entries, 1))
        self.offset = nn.Parameter(torch.zeros(members, 1, 1))

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """[batch, …] and [batch, entries] → for each critic [batch, 1].

        Args:
            obs: Observations [batch, features].
            actions: Actions [batch, action], in [−1, 1].
        """
        with torch.set_grad_enabled(not self.share_features_extractor):
            features = self.extract_features(obs, self.features_extractor)
        given = torch.cat([features, actions], dim=1).expand(self.n_critics, -1, -1)
        hidden = given
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = self.activation(torch.baddbmm(bias, hidden, weight))
        values = hidden @ self.last + given @ self.linear + self.offset
        return tuple(values.unbind(0))

    def q1_forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """What TD3's actor climbs: the mean less CAUTION standard deviations; members disagree where none has seen.

        Args:
            obs: Observations [batch, features].
            actions: Actions [batch, action], in [−1, 1].
        """
        values = torch.stack(self(obs, actions))
        return values.mean(dim=0) - CAUTION * values.std(dim=0)


class EnsembleSACPolicy(SACPolicy):
    """SAC's networks with an ensemble for its critics."""

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        return EnsembleCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


class EnsembleTD3Policy(TD3Policy):
    """TD3's networks with an ensemble for its critics."""

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        return EnsembleCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


ENSEMBLES: dict[str, type[SACPolicy] | type[TD3Policy]] = {"SAC": EnsembleSACPolicy, "TD3": EnsembleTD3Policy}
