"""Critic-guided search: of many actions that could be executed, those are that an agent's critics think best.

It is a learned surrogate that ranks level switches around the best plans so far, with a small part of actor proposals.
An evaluation becomes a transition of the replay: the executed action, and its reward. The critics learn from it by the
algorithm's own updates, and if its plan is among the best so far, the next candidates are made of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from autoprune.agent.replay import ExecutedActionReplayBuffer
from autoprune.env.action_scale import Action
from autoprune.env.replay_seed import ReplaySeed
from autoprune.ranges import Count, Fraction, NonNegative, Positive, check_fields

BETTER_FIRST = 0.35  # of the geometric distribution over the elite's ranks, from which parents are drawn


@dataclass(frozen=True, slots=True)
class CriticGuidance:
    """How actions are proposed and chosen: an evaluation costs a hundred times what a critic's answer does.

    Asking the critic about an action's neighbours is Wolpertinger's idea (arXiv 1512.07679), an optimistic ensemble
    that of arXiv 1706.01502. What was executed before is not executed again.
    """

    candidates_per_evaluation: Count
    """Actions that the critics are asked about for each one that is executed."""
    actor_fraction: Fraction
    """Part of the candidates that the actor samples, in [0, 1]."""
    neighbour_fraction: Fraction
    """Part that are small moves from the elite, as the environment knows them; the rest are Gaussian steps."""
    elite: Count
    """Best actions so far that candidates are made of."""
    max_changed_groups: Count
    """Entries that a Gaussian step changes at most."""
    sigmas: tuple[Positive, ...]
    """Standard deviations of Gaussian steps, of which one is drawn."""
    ucb_coefficient: NonNegative
    """Standard deviations of the critics that are added to their mean."""
    crossover_probability: Fraction
    """How often another elite action is crossed in before a Gaussian step."""
    exploration_fraction: Fraction = 0.0
    """Part of what is executed that is drawn from the other candidates: critics learn from it where they were wrong."""
    ranking: Literal["critics", "random"] = "critics"
    """What ranks candidates: `critics`, or `random`, the control that shows what the critics contribute."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent.critic_guidance")
        if not self.sigmas:
            raise ValueError("agent.agent.critic_guidance.sigmas are standard deviations, at least one; got none")
        if self.actor_fraction + self.neighbour_fraction > 1:
            raise ValueError(
                "critic_guidance.actor_fraction and neighbour_fraction are parts of one whole, got "
                f"{self.actor_fraction} and {self.neighbour_fraction}"
            )


class CriticGuided(OffPolicyAlgorithm):
    """An off-policy agent of Stable-Baselines3 whose critics choose what it executes; see CriticGuidance.

    `guide` has to be called once before it learns. Until then, in its warm-up, and where nothing new is near, it
    samples as its algorithm does.
    """

    _guidance: CriticGuidance | None = None

    def guide(self, guidance: CriticGuidance, seeds: Sequence[ReplaySeed], *, seed: int) -> None:
        """Fills the replay with what is known, and searches near it from now on.

        Args:
            guidance: How candidates are made and chosen.
            seeds: What is known, for each observation that episodes begin at.
            seed: Of the candidates.
        """
        if not isinstance(self.replay_buffer, ExecutedActionReplayBuffer):
            raise TypeError(f"a critic-guided agent needs an ExecutedActionReplayBuffer, got {self.replay_buffer!r}")
        self._guidance, self._rng = guidance, np.random.default_rng(seed)
        self._replay = self.replay_buffer
        self._seeds: Mapping[bytes, ReplaySeed] = {each.observation.tobytes(): each for each in seeds}
        self._executed: dict[bytes, set[bytes]] = {key: set() for key in self._seeds}
        self._rows: dict[bytes, list[int]] = {key: [] for key in self._seeds}
        for key, rows in zip(self._seeds, self._replay.seed(seeds), strict=True):
            self._remember(key, rows)
        self._read = self._replay.pos

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Actions to execute and to store, [n_envs, entries] each; the box is [−1, 1], so they are the same."""
        own = super()._sample_action
        if self._guidance is None:
            return own(learning_starts, action_noise, n_envs)
        self._read_replay()
        if self.num_timesteps < learning_starts:
            return own(learning_starts, action_noise, n_envs)
        observations = np.asarray(self._last_obs)
        chosen: dict[int, Action] = {}
        for key in dict.fromkeys(row.tobytes() for row in observations):
            rows = [index for index, row in enumerate(observations) if row.tobytes() == key]
            chosen |= dict(zip(rows, self._chosen(key, observations[rows[0]], len(rows)), strict=False))
        if len(chosen) == n_envs:
            actions = np.stack([chosen[row] for row in range(n_envs)])
            return actions, actions
        sampled, stored = own(learning_starts, action_noise, n_envs)  # all is executed that is near
        for row, action in chosen.items():
            sampled[row] = stored[row] = action
        return sampled, stored

    def _chosen(self, key: bytes, observation: NDArray[np.float32], count: int) -> Action:
        """`count` new actions for one observation, or none where there are fewer [count, entries]."""
        assert self._guidance is not None
        new = self._new(key, self._candidates(key, observation, count))
        if len(new) < count:
            return new[:0]
        if self._guidance.ranking == "random":
            best = self._rng.permutation(len(new))
        else:
            values = critic_values(self.policy, observation, new)
            optimistic = values.mean(axis=0) + self._guidance.ucb_coefficient * values.std(axis=0)
            best = np.argsort(-optimistic, kind="stable")
        ranked = count - round(self._guidance.exploration_fraction * count)
        others = self._rng.choice(best[ranked:], count - ranked, replace=False) if ranked < count else best[:0]
        actions: Action = new[np.append(best[:ranked], others)]
        self._executed[key].update(map(_rounded, actions))
        return actions

    def _candidates(self, key: bytes, observation: NDArray[np.float32], count: int) -> Action:
        """Actions as they would be executed [candidates_per_evaluation · count, entries]."""
        guidance, space, elite = self._guidance, self._seeds[key], self._elite(key)
        assert guidance is not None
        total = guidance.candidates_per_evaluation * count
        sampled, near = round(guidance.actor_fraction * total), round(guidance.neighbour_fraction * total)
        candidates = []
        if sampled:
            repeated = np.repeat(observation[None], sampled, axis=0)
            samples = np.asarray(self.predict(repeated, deterministic=False)[0], np.float32)
            candidates.append(space.executable(samples))
        if near:
            candidates.append(space.neighbours(self._parents(elite, near), self._rng))
        if total > sampled + near:
            candidates.append(space.executable(self._stepped(elite, total - sampled - near)))
        return np.concatenate(candidates)

    def _elite(self, key: bytes) -> Action:
        """The best actions so far that were executed there, best first [at most `elite`, entries]."""
        assert self._guidance is not None
        rows = self._rows[key]
        rewards, actions = self._replay.rewards[rows].reshape(-1), self._replay.actions[rows]
        best = np.argsort(-rewards, kind="stable")[: self._guidance.elite]
        return np.asarray(actions.reshape(len(rewards), -1)[best], np.float32)

    def _parents(self, elite: Action, count: int) -> Action:
        return elite[np.minimum(self._rng.geometric(BETTER_FIRST, count) - 1, len(elite) - 1)]

    def _stepped(self, elite: Action, count: int) -> Action:
        """Crossed elite actions after Gaussian steps in a few entries [count, entries] in [−1, 1]."""
        rng, guidance = self._rng, self._guidance
        assert guidance is not None
        parents, mates = self._parents(elite, count), elite[rng.integers(len(elite), size=count)]
        crossed = (rng.random(count) < guidance.crossover_probability)[:, None] & (rng.random(parents.shape) < 0.5)
        changes = rng.integers(1, min(guidance.max_changed_groups, elite.shape[1]) + 1, count)
        changed = rng.random(parents.shape).argsort(axis=1) < changes[:, None]
        sigma = np.array(guidance.sigmas)[rng.integers(len(guidance.sigmas), size=count)]
        steps = changed * rng.normal(0, sigma[:, None], parents.shape)
        return np.asarray(np.clip(np.where(crossed, mates, parents) + steps, -1, 1), np.float32)

    def _read_replay(self) -> None:
        """Takes in what was executed since the last time."""
        if self._replay.full:
            raise RuntimeError(
                "a critic-guided agent chooses among all that it has executed: its replay must hold the whole search"
            )
        for row in range(self._read, self._replay.pos):
            self._remember(self._replay.observations[row, 0].tobytes(), [row])
        self._read = self._replay.pos

    def _remember(self, key: bytes, rows: Sequence[int]) -> None:
        self._rows[key] += rows
        for row in rows:
            self._executed[key].update(map(_rounded, self._replay.actions[row]))

    def _new(self, key: bytes, actions: Action) -> Action:
        """Those that were not executed before, each once, in the order of the first [new, entries]."""
        executed = self._executed[key]
        new = {rounded: row for row in actions if (rounded := _rounded(row)) not in executed}
        return np.array(list(new.values()), np.float32).reshape(-1, actions.shape[1])


class CriticGuidedTD3(CriticGuided, TD3):
    """TD3 whose critics choose what it executes."""


class CriticGuidedSAC(CriticGuided, SAC):
    """SAC whose critics choose what it executes."""


class CriticGuidedTQC(CriticGuided, TQC):
    """TQC whose critics choose what it executes."""


class CriticGuidedCrossQ(CriticGuided, CrossQ):
    """CrossQ whose critics choose what it executes."""


CRITIC_GUIDED: Mapping[str, type[CriticGuided]] = {
    "CrossQ": CriticGuidedCrossQ,
    "SAC": CriticGuidedSAC,
    "TD3": CriticGuidedTD3,
    "TQC": CriticGuidedTQC,
}


@torch.no_grad()
def critic_values(policy: Any, observation: NDArray[np.float32], actions: Action) -> NDArray[np.float64]:
    """Returns what each critic of a policy's network says of actions [n, entries] at one observation: [critics, n].

    Args:
        policy: With ensemble critics.
        observation: What the environment shows.
        actions: Actions [batch, action], in [−1, 1].
    """
    policy.set_training_mode(False)
    observations = np.repeat(observation[None], len(actions), axis=0)
    values = policy.critic(policy.obs_to_tensor(observations)[0], torch.as_tensor(actions))
    if not isinstance(values, tuple):  # TQC's quantiles [actions, critics, quantiles]
        return np.asarray(values.mean(dim=2).T.double().numpy())
    return np.asarray(torch.stack([value.squeeze(1) for value in values]).double().numpy())


def _rounded(action: Action) -> bytes:
    return np.round(action, 5).astype(np.float32).tobytes()
