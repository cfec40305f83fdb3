"""What a configuration says of an agent: the algorithm, its network, what it learns from, how it explores."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sb3_contrib import TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from autoprune.agent.noise import Noise

# A one-to-one copy of names that configurations and policy files use. CrossQ would be one more line. RecurrentPPO would
# need a policy with a state as well.
ALGORITHMS: Mapping[str, type[BaseAlgorithm]] = {
    "A2C": A2C,
    "DDPG": DDPG,
    "DQN": DQN,
    "PPO": PPO,
    "SAC": SAC,
    "TD3": TD3,
    "TQC": TQC,
}
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

GAUSSIAN = ("A2C", "PPO", "SAC", "TQC")  # sample their actions from a normal distribution
ACTOR_CRITIC = ("DDPG", "SAC", "TD3", "TQC")  # have an actor with an optimizer of its own

# Arguments of Stable-Baselines3 that are decided here, and by what.
DECIDED = {
    "policy": "hidden and activation",
    "policy_kwargs": "hidden, activation and initial_std",
    "env": "the search",
    "seed": "the run's seed",
    "buffer_size": "experience.episodes",
    "learning_starts": "experience.warm_up_episodes",
    "train_freq": "experience, once an episode",
    "gradient_steps": "experience.updates_per_episode",
    "n_steps": "experience.episodes",
    "replay_buffer_class": "experience",
    "replay_buffer_kwargs": "experience",
    "optimize_memory_usage": "experience",
    "action_noise": "noise",
    "device": "the agent room: small networks are fastest on one CPU thread",
    "verbose": "tracking",
    "tensorboard_log": "tracking",
    "_init_setup_model": "Stable-Baselines3",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """What an off-policy agent learns from: the last `episodes` episodes, updated on after each of them.

    The first `warm_up_episodes` act at random and nothing is learned in them. updates_per_episode: gradient steps; None
    means one for each of the episode's steps. keep_proposed: see ExecutedActionReplayBuffer; copy_terminal_reward and
    baseline_rate: see TerminalRewardReplayBuffer.
    """

    episodes: int
    warm_up_episodes: int
    updates_per_episode: int | None = None
    keep_proposed: bool = False
    copy_terminal_reward: bool = False
    baseline_rate: float | None = None

    def __post_init__(self) -> None:
        _check_least("the episodes of a replay", self.episodes, 1)
        _check_least("warm_up_episodes", self.warm_up_episodes, 0)
        if self.updates_per_episode is not None:
            _check_least("updates_per_episode", self.updates_per_episode, 1)
        if self.baseline_rate is None:
            return
        if not 0 < self.baseline_rate <= 1:
            raise ValueError(f"baseline_rate must be in (0, 1], got {self.baseline_rate}")
        if not self.copy_terminal_reward:
            raise ValueError("a baseline is subtracted from copied terminal rewards: set copy_terminal_reward: true")


@dataclass(frozen=True, slots=True)
class Rollout:
    """What an on-policy agent learns from: `episodes` episodes of its current policy, one batch by default.

    In a vector environment they are played at once, as many as it has environments.
    """

    episodes: int

    def __post_init__(self) -> None:
        _check_least("the episodes of a rollout", self.episodes, 2)  # advantages are normalised over them


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An agent that can be built for any environment; an option that does not apply to its algorithm is an error.

    hidden: units of each hidden layer, of actor and critic alike. hyperparameters: Stable-Baselines3's own arguments,
    under its names. initial_std: standard deviation of the first samples in the action box [−1, 1] (SAC and TQC squash
    them by tanh). actor_learning_rate: where it differs from the critic's, which is hyperparameters.learning_rate.
    Lengths are in episodes, so that one configuration serves networks with any number of groups.

    >>> AgentSpec("PPO", experience=Rollout(episodes=10), hidden=(64, 64), activation="tanh", initial_std=0.2).algorithm
    'PPO'
    """

    algorithm: str
    experience: Replay | Rollout
    hidden: Sequence[int]
    activation: str
    hyperparameters: Mapping[str, Any] | None = None
    initial_std: float | None = None
    actor_learning_rate: float | None = None
    noise: Noise | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"unknown algorithm {self.algorithm!r}; known are {list(ALGORITHMS)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; known are {list(ACTIVATIONS)}")
        for width in self.hidden:
            _check_least("a hidden layer's units", width, 1)
        self._check_experience()
        self._check_hyperparameters()
        self._check_applies("initial_std", self.initial_std, GAUSSIAN)
        self._check_applies("actor_learning_rate", self.actor_learning_rate, ACTOR_CRITIC)
        if self.noise is not None and self.algorithm not in ACTOR_CRITIC:
            raise ValueError(
                f"noise does not apply to {self.algorithm}, which explores by itself; only to {ACTOR_CRITIC}"
            )

    @property
    def off_policy(self) -> bool:
        return issubclass(ALGORITHMS[self.algorithm], OffPolicyAlgorithm)

    @property
    def parallel_episodes(self) -> int:
        """How many episodes it can act in at once: a whole rollout, so that its plans are one batch, or else one."""
        return self.experience.episodes if isinstance(self.experience, Rollout) else 1

    def _check_experience(self) -> None:
        wanted = Replay if self.off_policy else Rollout
        if not isinstance(self.experience, wanted):
            raise ValueError(
                f"{self.algorithm} learns from a {wanted.__name__}, got a {type(self.experience).__name__}"
            )

    def _check_hyperparameters(self) -> None:
        known = set(inspect.signature(ALGORITHMS[self.algorithm].__init__).parameters) - {"self"} - set(DECIDED)
        for name in self.hyperparameters or {}:
            if name in DECIDED:
                raise ValueError(f"{name!r} is no hyperparameter here: it is decided by {DECIDED[name]}")
            if name not in known:
                raise ValueError(f"{self.algorithm} has no hyperparameter {name!r}; it has {sorted(known)}")

    def _check_applies(self, name: str, value: float | None, algorithms: Sequence[str]) -> None:
        if value is None:
            return
        if self.algorithm not in algorithms:
            raise ValueError(f"{name} does not apply to {self.algorithm}; only to {algorithms}")
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
