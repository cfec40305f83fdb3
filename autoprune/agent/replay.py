"""Replay of what was executed, not only of what was asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from autoprune.env.replay_seed import ReplaySeed

Array = NDArray[Any]

DEEPEST = 5.0  # standard deviations
LEAST_DEVIATION = 0.05  # of the best reward's magnitude: few rewards, or equal ones, have none
SMALLEST = 1e-8


class ExecutedActionReplayBuffer(NStepReplayBuffer):
    """A replay whose actions are those the environment executed: `info["executed_action"]`, on the action's scale.

    The budget's projection changes actions; with the raw ones alone the critic would credit a plan that never was.

    Args:
        keep_proposed: A changed action is stored as well, as a second transition to the same place: which it is, since
            the projection is a part of the environment. Without it, actions that are never executed keep the values
            they were born with, and an agent that thinks well of one proposes it for ever.
        n_steps: Rewards that a sample adds up (see NStepReplayBuffer, as for the arguments before).
        gamma: Their discount.
        standardised: Rewards are sampled as standard deviations from the best so far, at most DEEPEST below it, so that
            critics see what tells good plans from each other, whatever their scale; only where each step is an episode.
            Deviation and best are those of what the agent did itself.
        shifted: Every other sample's action is moved by one number in all entries, as far as the box has room. Targets
            in log-densities are filled to the budget, so all of these become the same plan; a critic that has not seen
            them would send the actor to where all is kept.
    """

    seeded = 0
    """Rows that the agent did not execute itself."""

    def __init__(  # noqa: PLR0913 - Stable-Baselines3's signature
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        keep_proposed: bool = False,
        n_steps: int = 1,
        gamma: float = 1.0,
        standardised: bool = False,
        shifted: bool = False,
    ) -> None:
        if keep_proposed and n_steps > 1:
            raise ValueError("keep_proposed stores a step twice, so n-step returns cannot be read from its replay")
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            optimize_memory_usage,
            n_steps=n_steps,
            gamma=gamma,
        )
        self._keep_proposed, self._standardised, self._shifted = keep_proposed, standardised, shifted

    def add(
        self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[dict[str, Any]]
    ) -> None:
        executed = executed_actions(self.action_space, action, infos)
        super().add(obs, next_obs, executed, reward, done, infos)
        if self._keep_proposed and not np.allclose(executed, action):
            super().add(obs, next_obs, action, reward, done, infos)

    def seed(self, seeds: Sequence[ReplaySeed]) -> list[range]:
        """Adds what is known before the agent acts; returns for each seed the rows whose actions can be executed.

        Rows are added whole, so that some of what is known is added twice.
        """
        executable = []
        for each in seeds:
            observations = np.repeat(each.observation[None], self.n_envs, axis=0)
            split = len(each.rewards) - each.done
            for part in (np.arange(split), np.arange(split, len(each.rewards))):
                first = self.pos
                for row in np.resize(part, (-(-len(part) // self.n_envs), self.n_envs)):
                    actions, infos = each.actions[row], [{"executed_action": action} for action in each.actions[row]]
                    self.add(observations, observations, actions, each.rewards[row], np.ones(self.n_envs, bool), infos)
            executable.append(range(first, self.pos))
        self.seeded = self.pos - 1
        return executable

    def _get_samples(self, batch_inds: NDArray[np.int64], env: VecNormalize | None = None) -> ReplayBufferSamples:
        batch = super()._get_samples(batch_inds, env)
        if not self._shifted:
            return batch
        low, high = -1 - batch.actions.amin(dim=1), 1 - batch.actions.amax(dim=1)
        chance, position = (
            torch.as_tensor(np.random.random_sample(len(batch_inds)), dtype=low.dtype) for _ in range(2)
        )
        moves = (chance < 0.5) & torch.as_tensor(batch_inds >= self.seeded)
        shift = torch.where(moves, low + position * (high - low), torch.zeros_like(low))
        return batch._replace(actions=batch.actions + shift[:, None])

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        batch = super().sample(batch_size, env)
        if not self._standardised:
            return batch
        own = self.rewards[self.seeded : self.buffer_size if self.full else self.pos]
        best = float(own.max())
        deviation = max(float(own.std()), LEAST_DEVIATION * abs(best), SMALLEST)
        return batch._replace(rewards=((batch.rewards - best) / deviation).clamp(-DEEPEST, DEEPEST))


def executed_actions(space: spaces.Space[Any], action: Array, infos: list[dict[str, Any]]) -> Array:
    """[environments, …], in the buffer's scale: Stable-Baselines3 maps a box's bounds to −1 and 1.

    Args:
        space: A Gymnasium space.
        action: In [−1, 1] [groups].
        infos: Gymnasium's infos, one for each environment.
    """
    if any("executed_action" not in info for info in infos):
        raise ValueError(
            "the environment's info has no 'executed_action': a replay learns from what was executed, "
            "so every step has to say what became of its action"
        )
    executed = np.stack([np.asarray(info["executed_action"]) for info in infos])
    if executed.shape != action.shape:
        raise ValueError(f"executed_action must have the action's shape {action.shape[1:]}, got {executed.shape[1:]}")
    if isinstance(space, spaces.Box):
        executed = 2 * (executed - space.low) / (space.high - space.low) - 1
    return executed


class TerminalRewardReplayBuffer(ExecutedActionReplayBuffer):
    """A replay that gives every transition of an episode the reward of its last one, as AMC does (arXiv 1802.03494).

    Transitions are held back until their episode ends, so that none is learned from with the wrong reward. Parallel
    environments have to end their episodes together, as episodes of one length do.

    With a `baseline_rate` α the rewards of every sampled batch are centred: b ← b + α·(mean reward of the batch − b) is
    subtracted from them (the rate in AMC's code is 0.5, and b begins as the first batch's mean).
    """

    def __init__(  # noqa: PLR0913 - Stable-Baselines3's signature
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        keep_proposed: bool = False,
        baseline_rate: float | None = None,
        n_steps: int = 1,
        gamma: float = 1.0,
    ) -> None:
        if n_steps > 1:
            raise ValueError("every step has its episode's reward already: copy_terminal_reward needs n_steps=1")
        super().__init__(
            buffer_size, observation_space, action_space, device, n_envs, optimize_memory_usage, keep_proposed,
            gamma=gamma,
        )  # fmt: skip
        self.baseline: float | None = None
        self._baseline_rate = baseline_rate
        self._held: list[tuple[Array, Array, Array, Array, list[dict[str, Any]]]] = []

    def add(
        self, obs: Array, next_obs: Array, action: Array, reward: Array, done: Array, infos: list[dict[str, Any]]
    ) -> None:
        self._held.append((obs, next_obs, action, done, infos))
        if not np.any(done):
            return
        if not np.all(done):
            raise ValueError("a terminal reward can be copied only where all parallel episodes end together")
        for held_obs, held_next, held_action, held_done, held_infos in self._held:
            super().add(held_obs, held_next, held_action, reward, held_done, held_infos)
        self._held.clear()

    def reset(self) -> None:
        super().reset()
        self._held.clear()

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        batch = super().sample(batch_size, env)
        if self._baseline_rate is None:
            return batch
        mean = float(batch.rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + self._baseline_rate * (mean - self.baseline)
        return batch._replace(rewards=batch.rewards - self.baseline)
