"""Acting on the critics' advice: of many actions that could be executed, the most promising ones are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

Actions = NDArray[np.float32]
Executable = Callable[[Actions], Actions]  # actions [many, …] → what would be executed of them
Near = Callable[[Actions, np.random.Generator], Actions]  # executed actions [many, …] → another one near each of them


@dataclass(frozen=True, slots=True)
class CriticGuidance:
    """How actions are proposed and chosen.

    An evaluation costs a hundred times what a critic does, so the critics are asked about `candidates_per_evaluation`
    actions for each one that is executed. A part `actor_fraction` of them are samples of the actor's, a part
    `neighbour_fraction` are small moves from the `elite` best actions so far, such as the environment knows them; the
    others are those actions after Gaussian steps of one of the `sigmas` in 1 to `max_changed_groups` entries, crossed
    with another one before with probability `crossover_probability`. All are judged as they would be executed, by the
    critics' mean plus `ucb_coefficient` times their standard deviation; what was executed before is not again. A part
    `exploration_fraction` of what is executed is not the critics' choice, but any of what was proposed: they learn from
    it where they were wrong. The idea of asking the critic about an action's neighbours is
    Wolpertinger's (arXiv 1512.07679), that of an optimistic ensemble is in arXiv 1706.01502.
    """

    candidates_per_evaluation: int
    actor_fraction: float
    neighbour_fraction: float
    elite: int
    max_changed_groups: int
    sigmas: tuple[float, ...]
    ucb_coefficient: float
    crossover_probability: float
    exploration_fraction: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        for name in ("candidates_per_evaluation", "elite", "max_changed_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"critic_guidance.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("actor_fraction", "neighbour_fraction", "crossover_probability", "exploration_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"critic_guidance.{name} is a part, in [0, 1]; got {getattr(self, name)}")
        if self.actor_fraction + self.neighbour_fraction > 1:
            raise ValueError(
                "critic_guidance.actor_fraction and neighbour_fraction are parts of one whole, got "
                f"{self.actor_fraction} and {self.neighbour_fraction}"
            )
        if not self.sigmas or min(self.sigmas) <= 0:
            raise ValueError(f"critic_guidance.sigmas are standard deviations above 0, at least one; got {self.sigmas}")
        if self.ucb_coefficient < 0:
            raise ValueError(f"critic_guidance.ucb_coefficient must not be negative, got {self.ucb_coefficient}")


@dataclass(frozen=True, slots=True)
class ExecutableSpace:
    """What can be executed where an episode begins, and what is near what was executed there; see CriticGuidance."""

    executable: Executable
    near: Near


class CriticGuidedSampling:
    """Chooses what an off-policy agent executes; takes the place of its own sampling.

    places: those that episodes begin at, by the bytes of their observations. executed: rows of the replay, by the same
    key, whose actions were executed there before the agent acts; what else was told (see build.Known) is no elite.
    """

    def __init__(
        self,
        model: OffPolicyAlgorithm,
        guidance: CriticGuidance,
        *,
        places: Mapping[bytes, ExecutableSpace],
        executed: Mapping[bytes, Sequence[int]],
        seed: int,
    ) -> None:
        self._model, self._guidance, self._places = model, guidance, places
        self._rng = np.random.default_rng(seed)
        self._own: Callable[..., tuple[Actions, Actions]] = model._sample_action
        self._done: dict[bytes, set[bytes]] = {key: set() for key in places}
        self._rows: dict[bytes, list[int]] = {key: [] for key in places}
        for key, rows in executed.items():
            self._remember(key, rows)
        self._read = 0 if model.replay_buffer is None else model.replay_buffer.pos

    def __call__(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Actions, Actions]:
        """Actions to execute and to store, [n_envs, entries] each; the box is [−1, 1], so they are the same."""
        key = np.asarray(self._model._last_obs)[0].tobytes()
        elite = self._elite(key)
        if self._model.num_timesteps < learning_starts:
            return self._own(learning_starts, action_noise, n_envs)
        new = self._fresh(key, self._proposed(key, elite, n_envs))
        if len(new) < n_envs:  # all is known that is near: the actor is asked
            return self._own(learning_starts, action_noise, n_envs)
        values = critic_values(self._model.policy, np.asarray(self._model._last_obs)[0], new)
        best = np.argsort(-(values.mean(axis=0) + self._guidance.ucb_coefficient * values.std(axis=0)), kind="stable")
        asked = n_envs - round(self._guidance.exploration_fraction * n_envs)
        others = self._rng.choice(best[asked:], n_envs - asked, replace=False) if asked < n_envs else best[:0]
        chosen = new[np.append(best[:asked], others)]
        self._done[key].update(map(_key, chosen))
        return chosen, chosen

    def _elite(self, key: bytes) -> Actions:
        """The best actions so far that were executed there, best first, [at most `elite`, entries]."""
        replay: Any = self._model.replay_buffer
        if replay is None or replay.full:
            raise RuntimeError(
                "a critic-guided agent chooses among all that it has done: its replay must hold the whole search"
            )
        for row in range(self._read, replay.pos):
            self._remember(replay.observations[row, 0].tobytes(), [row])
        self._read = replay.pos
        rows = self._rows[key]
        rewards, actions = replay.rewards[rows].reshape(-1), replay.actions[rows]
        best = np.argsort(-rewards, kind="stable")[: self._guidance.elite]
        found: Actions = actions.reshape(len(rewards), -1)[best]
        return found

    def _remember(self, key: bytes, rows: Sequence[int]) -> None:
        replay: Any = self._model.replay_buffer
        self._rows[key] += rows
        for row in rows:
            self._done[key].update(map(_key, replay.actions[row]))

    def _proposed(self, key: bytes, elite: Actions, envs: int) -> Actions:
        """Actions as they would be executed: [many · envs, entries]."""
        guidance, place = self._guidance, self._places[key]
        many = guidance.candidates_per_evaluation * envs
        sampled, near = round(guidance.actor_fraction * many), round(guidance.neighbour_fraction * many)
        found = []
        if sampled:
            found.append(place.executable(self._samples(sampled)))
        if near:
            found.append(place.near(self._parents(elite, near), self._rng))
        if many > sampled + near:
            found.append(place.executable(self._changed(elite, many - sampled - near)))
        return np.concatenate(found)

    def _parents(self, elite: Actions, many: int) -> Actions:
        """Better ones more often."""
        return elite[np.minimum(self._rng.geometric(0.35, many) - 1, len(elite) - 1)]

    def _changed(self, elite: Actions, many: int) -> Actions:
        """[many, entries] in [−1, 1]"""
        rng, guidance = self._rng, self._guidance
        parents, mates = self._parents(elite, many), elite[rng.integers(len(elite), size=many)]
        crossed = (rng.random(many) < guidance.crossover_probability)[:, None] & (rng.random(parents.shape) < 0.5)
        changes = rng.integers(1, min(guidance.max_changed_groups, elite.shape[1]) + 1, many)
        chosen = rng.random(parents.shape).argsort(axis=1) < changes[:, None]
        sigma = np.array(guidance.sigmas)[rng.integers(len(guidance.sigmas), size=many)]
        steps = chosen * rng.normal(0, sigma[:, None], parents.shape)
        return np.asarray(np.clip(np.where(crossed, mates, parents) + steps, -1, 1), np.float32)

    def _samples(self, many: int) -> Actions:
        assert self._model._last_obs is not None
        observations = np.repeat(np.asarray(self._model._last_obs)[:1], many, axis=0)
        return np.asarray(self._model.predict(observations, deterministic=False)[0], np.float32)

    def _fresh(self, key: bytes, executed: Actions) -> Actions:
        """Those that were not executed before, each once, in the order of the first: [fresh, entries]."""
        done = self._done[key]
        found = {found: row for row in executed if (found := _key(row)) not in done}
        return np.array(list(found.values()), np.float32).reshape(-1, executed.shape[1])


@torch.no_grad()
def critic_values(policy: Any, observation: NDArray[np.float32], actions: Actions) -> NDArray[np.float64]:
    """What each critic of a policy's network says of actions [many, …] at one observation: [critics, many]."""
    policy.set_training_mode(False)
    observations = np.repeat(observation[None], len(actions), axis=0)
    values = policy.critic(policy.obs_to_tensor(observations)[0], torch.as_tensor(actions))
    if not isinstance(values, tuple):  # TQC's quantiles [actions, critics, quantiles]
        return np.asarray(values.mean(dim=2).T.double().numpy())
    return np.asarray(torch.stack([value.squeeze(1) for value in values]).double().numpy())


def _key(action: Actions) -> bytes:
    return np.round(action, 5).astype(np.float32).tobytes()
