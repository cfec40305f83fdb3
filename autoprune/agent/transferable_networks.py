"""TD3's networks for plans of any network: what they learn of one is known of the others.

An observation is a row for each group and who its neighbours are (env/rows.py), padded; an action corrects the prior
plan's log-densities. A critic begins at what single-group curves say, that losses add up, and learns what is wrong
with it: how groups make each other's losses worse.
"""

from typing import Any, NamedTuple

import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.td3.policies import Actor, TD3Policy
from torch import Tensor, nn

from autoprune.agent.critics import CAUTION
from autoprune.agent.encoders import Encoder, mean_of
from autoprune.env.transfer_features import CURVE, DENSITIES, ERROR, IN_NATS, NOTHING, ROW_FEATURES, column

LEAST = 1e-2  # density, likewise
MOVING = 6  # features of a group that depend on the action


class Groups(NamedTuple):
    """A batch of networks' groups, padded to as many as the largest one has."""

    rows: Tensor
    """Features [batch, groups, features]."""
    present: Tensor
    """1 for groups that are there, 0 for padding [batch, groups, 1]."""
    edges: Tensor
    """1 between neighbours, else 0 [batch, groups, groups]."""

    @property
    def prior(self) -> Tensor:
        """The prior plan's densities [batch, groups]; padding has 1."""
        return torch.where(self.present[..., 0] > 0.5, self.rows[..., column("prior_density")], 1.0)


def groups_of(flat: Tensor, groups: int) -> Groups:
    """Of observations [batch, groups · (features + groups)].

    Args:
        flat: Observations, groups one after the other [batch, groups · features].
        groups: How many groups there are.
    """
    every = flat.view(len(flat), groups, len(ROW_FEATURES) + groups)
    rows, edges = every.split([len(ROW_FEATURES), groups], dim=2)
    return Groups(rows, rows[..., column("present"), None], edges)


class Normaliser(nn.Module):
    """Features as standard deviations from their mean over the networks that were trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(len(ROW_FEATURES)))
        self.register_buffer("spread", torch.ones(len(ROW_FEATURES)))

    def forward(self, seen: Groups) -> Tensor:
        """Beyond four deviations nothing was seen in training, whatever it is: [batch, groups, features]."""
        return ((_logarithmic(seen.rows) - self.centre) / self.spread).clamp(-4, 4) * seen.present

    @torch.no_grad()
    def learn(self, rows: Tensor) -> None:
        """From groups of the networks that are trained on [groups, features]."""
        plain = _logarithmic(rows)
        self.centre.copy_(plain.mean(dim=0))
        self.spread.copy_(plain.std(dim=0).clamp(min=0.05))


class PlanLoss(nn.Module):
    """log KL of plans, up to a constant of each network: the sum of what groups lose alone, and a correction."""

    def __init__(self, encoder: str, hidden: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.normaliser = Normaliser()
        self.encoder = Encoder(encoder, len(ROW_FEATURES) + MOVING, hidden, activation)
        self.head = nn.Linear(hidden[-1], 1)
        nn.init.zeros_(self.head.weight)  # before it has learned, losses add up
        nn.init.zeros_(self.head.bias)

    def forward(self, seen: Groups, density: Tensor) -> Tensor:
        """density [batch, groups] → [batch, 1]

        Args:
            seen: What is seen of each group.
            density: Densities [batch, groups].
        """
        lost = at(seen, CURVE, density) * seen.present[..., 0]
        total = lost.sum(dim=1, keepdim=True) + NOTHING
        moving = [
            density,
            density.clamp(min=LEAST).log(),
            torch.log10(lost + NOTHING),
            at(seen, ERROR, density),
            lost / total,
            total.log().expand_as(lost),
        ]
        x = torch.cat([self.normaliser(seen), torch.stack(moving, dim=2)], dim=2)
        each: Tensor = self.head(self.encoder(x, seen.present, seen.edges))
        return mean_of(each, seen.present)[:, 0] + total.log()


class TransferableCritic(ContinuousCritic):
    """`n_critics` members, each of which says by how much an action's plan is better than the prior, in log KL."""

    def __init__(
        self,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        *,
        encoder: str,
        max_log_correction: float,
        **options: Any,
    ) -> None:
        super().__init__(net_arch=[], activation_fn=activation_fn, **options)
        for name in [name for name, _ in self.named_children() if name.startswith("qf")]:
            delattr(self, name)
        self.q_networks = []
        self.members = nn.ModuleList(PlanLoss(encoder, net_arch, activation_fn) for _ in range(self.n_critics))
        self.max_log_correction = max_log_correction

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """[batch, …] and [batch, groups] → for each critic [batch, 1].

        Args:
            obs: Observations [batch, features].
            actions: Actions [batch, action], in [−1, 1].
        """
        seen = groups_of(obs.float(), actions.shape[1])
        both = Groups(*(torch.cat([part, part]) for part in seen))
        density = torch.cat([asked_for(seen, actions, self.max_log_correction), seen.prior])
        values = []
        for member in self.members:
            plan_loss, prior = member(both, density).chunk(2)
            values.append(prior - plan_loss)
        return tuple(values)

    def q1_forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """What the actor climbs: the mean less CAUTION standard deviations, where there are several.

        Args:
            obs: Observations [batch, features].
            actions: Actions [batch, action], in [−1, 1].
        """
        values = torch.stack(self(obs, actions))
        return values.mean(dim=0) - (CAUTION * values.std(dim=0) if len(values) > 1 else 0)


class _Corrections(nn.Module):
    """The actor: [batch, …] → [batch, groups], moved so that the prior's cost is about kept."""

    def __init__(
        self, groups: int, encoder: str, hidden: list[int], activation: type[nn.Module], *, max_log_correction: float
    ) -> None:
        super().__init__()
        self.groups, self.max_log_correction = groups, max_log_correction
        self.normaliser = Normaliser()
        self.encoder = Encoder(encoder, len(ROW_FEATURES), hidden, activation)
        self.head = nn.Linear(hidden[-1], 1)
        nn.init.orthogonal_(self.head.weight, gain=0.01)  # begins at the prior
        nn.init.zeros_(self.head.bias)

    def forward(self, flat: Tensor) -> Tensor:
        seen = groups_of(flat.float(), self.groups)
        latent = self.encoder(self.normaliser(seen), seen.present, seen.edges)
        raw = torch.tanh(self.head(latent))[..., 0]
        share = seen.rows[..., column("budget_share")].clamp(min=0) * seen.present[..., 0]
        asked = (share * asked_for(seen, raw, self.max_log_correction)).sum(dim=1, keepdim=True)
        spent = (share * seen.prior).sum(dim=1, keepdim=True)
        moved = raw - ((asked + NOTHING) / (spent + NOTHING)).log() / self.max_log_correction
        return moved.clamp(-1, 1) * seen.present[..., 0]


class TransferableActor(Actor):
    """Corrections of the prior plan, group by group."""

    def __init__(self, *, encoder: str, max_log_correction: float, **options: Any) -> None:
        hidden = options.pop("net_arch")
        super().__init__(net_arch=[], **options)
        groups = int(self.action_space.shape[0])  # type: ignore[index]
        self.mu = _Corrections(groups, encoder, hidden, self.activation_fn, max_log_correction=max_log_correction)  # type: ignore[assignment]


class TransferableTD3Policy(TD3Policy):
    """TD3's actor and critics over groups. encoder: see encoders.ENCODERS; max_log_correction: log-densities that 1 of
    action is."""

    def __init__(self, *arguments: Any, encoder: str, max_log_correction: float, **options: Any) -> None:
        self._own = {"encoder": encoder, "max_log_correction": max_log_correction}
        super().__init__(*arguments, **options)

    def make_actor(self, features_extractor: Any = None) -> Actor:
        options = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return TransferableActor(**options, **self._own).to(self.device)  # type: ignore[arg-type]

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        options = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return TransferableCritic(**options, **self._own).to(self.device)  # type: ignore[arg-type]

    def normalise(self, rows: Tensor) -> None:
        """Every network reads features as deviations from these groups' [groups, features]."""
        for module in self.modules():
            if isinstance(module, Normaliser):
                module.learn(rows)


_NATS = [column(name) for name in IN_NATS]


def _logarithmic(rows: Tensor) -> Tensor:
    """The same rows, with losses as log10."""
    logarithms = rows.clone()
    logarithms[..., _NATS] = torch.log10(rows[..., _NATS].clamp(min=0) + NOTHING)
    return logarithms


def asked_for(seen: Groups, actions: Tensor, max_log_correction: float) -> Tensor:
    """The densities that actions ask for [batch, groups]; padding has its own.

    Args:
        seen: What is seen of each group.
        actions: Actions [batch, action], in [−1, 1].
        max_log_correction: What an action of 1 adds to the prior's log-density, above 0.
    """
    return torch.where(
        seen.present[..., 0] > 0.5, (seen.prior * (max_log_correction * actions).exp()).clamp(max=1.0), 1.0
    )


def at(seen: Groups, names: tuple[str, ...], density: Tensor) -> Tensor:
    """A curve of rows, between its points linear, at densities [batch, groups].

    Args:
        seen: What is seen of each group.
        names: Features that are the curve's points, in order.
        density: Densities [batch, groups].
    """
    points = torch.tensor(DENSITIES, dtype=density.dtype)
    curve = seen.rows[..., column(names[0]) : column(names[-1]) + 1]
    inside = density.clamp(DENSITIES[0], DENSITIES[-1])
    right = torch.searchsorted(points, inside.detach().contiguous(), right=True).clamp(1, len(DENSITIES) - 1)
    low, high = points[right - 1], points[right]
    part = (inside - low) / (high - low)
    before, after = (curve.gather(2, index[..., None])[..., 0] for index in (right - 1, right))
    return before + part * (after - before)
