"""What a configuration says of an agent: the algorithm, its network, what it learns from, how it explores."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from sb3_contrib import TQC, CrossQ, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from autoprune.agent.critic_search import CriticGuidance
from autoprune.agent.encoders import ENCODERS
from autoprune.agent.noise import Noise
from autoprune.ranges import Batch, Count, Natural, OneOf, Positive, Share, check_fields

# A one-to-one copy of names that configurations and policy files use.
ALGORITHMS: Mapping[str, type[BaseAlgorithm]] = {
    "A2C": A2C,
    "CrossQ": CrossQ,
    "DDPG": DDPG,
    "DQN": DQN,
    "PPO": PPO,
    "RecurrentPPO": RecurrentPPO,
    "SAC": SAC,
    "TD3": TD3,
    "TQC": TQC,
}
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

NETWORKS = ("whole", "shared", "shared_bias", "transferable")

GAUSSIAN = ("A2C", "CrossQ", "PPO", "RecurrentPPO", "SAC", "TQC")  # sample their actions from a normal distribution
ACTOR_CRITIC = ("CrossQ", "DDPG", "SAC", "TD3", "TQC")  # have an actor with an optimizer of its own
CRITICS = ("CrossQ", "SAC", "TD3", "TQC")  # have an ensemble of critics, of any size
SHARING = ("A2C", "PPO")  # can have one network for all groups
TRANSFERABLE = ("TD3",)  # can have one that fits any number of groups
RECURRENT = ("RecurrentPPO",)  # remember the steps of an episode

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
    "n_steps": "experience.episodes, and experience.n_steps of a replay",
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
    """What an off-policy agent learns from: the last episodes, updated on after each of them.

    Lengths are in episodes, so that one configuration serves networks with any number of groups.
    """

    episodes: Count
    """How many are kept."""
    warm_up_episodes: Natural
    """The first so many act at random, and nothing is learned in them."""
    updates_per_episode: Positive | None = None
    """Gradient steps, at least one for a batch of episodes; None: one for each of an episode's steps."""
    n_steps: Count = 1
    """Rewards that a target adds up before it asks the critic."""
    parallel: Count = 1
    """Episodes that are acted in at once, whose plans are one batch for the objective."""
    standardised: bool = False
    """Rewards are standardised (ExecutedActionReplayBuffer)."""
    shifted: bool = False
    """Rewards are shifted (ExecutedActionReplayBuffer)."""
    keep_proposed: bool = False
    """Proposed actions are kept beside executed ones (ExecutedActionReplayBuffer)."""
    copy_terminal_reward: bool = False
    """Every step has its episode's reward (TerminalRewardReplayBuffer)."""
    baseline_rate: Share | None = None
    """Of the moving average that rewards are relative to (TerminalRewardReplayBuffer); None: they are not."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent.experience")
        if self.n_steps > 1 and (self.keep_proposed or self.copy_terminal_reward):
            raise ValueError("n_steps adds up the rewards of each step once: it needs neither keep_proposed nor copies")
        if self.standardised and self.copy_terminal_reward:
            raise ValueError("rewards are standardised or copied, not both: set copy_terminal_reward: false")
        if self.baseline_rate is not None and not self.copy_terminal_reward:
            raise ValueError("a baseline is subtracted from copied terminal rewards: set copy_terminal_reward: true")


@dataclass(frozen=True, slots=True)
class Rollout:
    """What an on-policy agent learns from: `episodes` episodes of its current policy, one batch by default.

    In a vector environment they are played at once, as many as it has environments.
    """

    episodes: Batch
    """In one batch, at least 2: advantages are normalised over them."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent.experience")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An agent that can be built for any environment; an option that does not apply to its algorithm is an error.

    >>> AgentSpec("PPO", experience=Rollout(episodes=10), hidden=(64, 64), activation="tanh", initial_std=0.2).algorithm
    'PPO'
    """

    algorithm: Annotated[str, OneOf(ALGORITHMS)]
    """One of ALGORITHMS."""
    experience: Replay | Rollout
    """What it learns from, on or off policy."""
    hidden: Sequence[Count]
    """Units of each hidden layer, of actor and critic alike."""
    activation: Annotated[str, OneOf(ACTIVATIONS)]
    """One of ACTIVATIONS."""
    hyperparameters: Mapping[str, Any] | None = None
    """Stable-Baselines3's own arguments, under its names; None: its defaults."""
    initial_std: Positive | None = None
    """Standard deviation of the first samples in the action box [−1, 1] (SAC and TQC squash them by tanh)."""
    actor_learning_rate: Positive | None = None
    """Where it differs from the critic's, which is hyperparameters.learning_rate."""
    noise: Noise | None = None
    """What is added to actions while it explores; None: what the algorithm does."""
    network: Annotated[str, OneOf(NETWORKS)] = "whole"
    """One for the `whole` plan; one that all groups share, `shared` or with a bias for each group `shared_bias`
    (SharedPolicy); or one that is `transferable` from network to network (TransferableTD3Policy)."""
    memory: Count | None = None
    """Units of RecurrentPPO's LSTM."""
    critics: Count | None = None
    """How many it has, where that can be chosen."""
    critic_guidance: CriticGuidance | None = None
    """How the critics choose what is executed, among much that is proposed; None: actors act."""
    encoder: Annotated[str, OneOf(ENCODERS)] | None = None
    """How a transferable network reads the groups, one of ENCODERS."""
    max_log_correction: Positive | None = None
    """What an action of 1 adds to the prior's log-density, of a transferable network."""
    budget_waves: Natural = 0
    """Frequencies of the sines and cosines of the budget that a network for the whole plan reads beside it; 0: none."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent")
        self._check_experience()
        self._check_hyperparameters()
        self._check_applies("initial_std", self.initial_std, GAUSSIAN)
        self._check_applies("critics", self.critics, CRITICS)
        self._check_applies("actor_learning_rate", self.actor_learning_rate, ACTOR_CRITIC)
        self._check_network()
        if self.noise is not None and self.algorithm not in ACTOR_CRITIC:
            raise ValueError(
                f"noise does not apply to {self.algorithm}, which explores by itself; only to {ACTOR_CRITIC}"
            )

    @property
    def off_policy(self) -> bool:
        return issubclass(ALGORITHMS[self.algorithm], OffPolicyAlgorithm)

    @property
    def parallel_episodes(self) -> int:
        """How many episodes it acts in at once: a whole rollout, or what its replay says; their plans are one batch."""
        return self.experience.episodes if isinstance(self.experience, Rollout) else self.experience.parallel

    def _check_experience(self) -> None:
        wanted = Replay if self.off_policy else Rollout
        if not isinstance(self.experience, wanted):
            raise ValueError(
                f"{self.algorithm} learns from a {wanted.__name__}, got a {type(self.experience).__name__}"
            )

    def _check_network(self) -> None:
        able = TRANSFERABLE if self.network == "transferable" else SHARING
        if self.network != "whole" and self.algorithm not in able:
            raise ValueError(f"network={self.network} does not apply to {self.algorithm}; only to {able}")
        if (self.encoder is None or self.max_log_correction is None) == (self.network == "transferable"):
            raise ValueError(
                f"encoder and max_log_correction are those of network=transferable, which needs both; got "
                f"encoder={self.encoder} and max_log_correction={self.max_log_correction} with network={self.network}"
            )
        if self.network != "whole" and self.budget_waves:
            raise ValueError(f"budget_waves is for network=whole, got {self.budget_waves} with network={self.network}")
        if self.network != "whole" and not self.hidden:
            raise ValueError(f"network={self.network} needs at least one hidden layer")
        if (self.memory is None) != (self.algorithm not in RECURRENT):
            raise ValueError(f"memory is for {RECURRENT}, which need it; got {self.memory} with {self.algorithm}")
        if self.critic_guidance is not None and (self.algorithm not in CRITICS or self.noise is not None):
            raise ValueError(
                f"proposals are chosen by critics of actions, and explore without noise: they apply to {CRITICS} with "
                f"noise=null, not to {self.algorithm}{'' if self.noise is None else ' with noise'}"
            )
        if isinstance(self.experience, Replay) and self.experience.parallel > 1 and self.noise is not None:
            raise ValueError(
                "noise is drawn for one episode at a time; set agent.agent.experience.parallel=1 or "
                "agent.agent.noise=null"
            )

    def _check_hyperparameters(self) -> None:
        names = set(inspect.signature(ALGORITHMS[self.algorithm].__init__).parameters) - {"self"} - set(DECIDED)
        for name in self.hyperparameters or {}:
            if name in DECIDED:
                raise ValueError(f"{name!r} is no hyperparameter here: it is decided by {DECIDED[name]}")
            if name not in names:
                raise ValueError(f"{self.algorithm} has no hyperparameter {name!r}; it has {sorted(names)}")

    def _check_applies(self, name: str, value: float | None, algorithms: Sequence[str]) -> None:
        if value is not None and self.algorithm not in algorithms:
            raise ValueError(f"{name} does not apply to {self.algorithm}; only to {algorithms}")
