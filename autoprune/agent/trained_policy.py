"""What the agent learned: a policy, without the algorithm that learned it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from autoprune.agent.agent_spec import ACTIVATIONS, ALGORITHMS, RECURRENT
from autoprune.agent.budget_waves import BudgetWaves
from autoprune.agent.critics import ENSEMBLES
from autoprune.agent.shared_networks import SharedPolicy
from autoprune.agent.transferable_networks import Normaliser, TransferableTD3Policy
from autoprune.env.transfer_features import ROW_FEATURES


@dataclass(frozen=True, slots=True, eq=False)
class TrainedPolicy:
    """A policy that acts without exploring."""

    algorithm: str
    """The name of the algorithm that it was learned by, such as PPO."""
    architecture: Mapping[str, Any]
    """Plain values from which, with the two spaces, an equal network is built (`build_network`)."""
    network: BasePolicy = field(repr=False)
    """Stable-Baselines3's policy, in eval mode."""
    _memory: list[Any] = field(default_factory=lambda: [None], init=False, repr=False)

    def begin(self) -> None:
        """An episode begins: nothing is remembered of the one before."""
        self._memory[0] = None

    def act(self, observation: NDArray[np.float32]) -> NDArray[Any]:
        """The action the policy thinks best: the mean or the actor's output, in the action box; or the best level."""
        first = np.array([self._memory[0] is None])
        action, self._memory[0] = self.network.predict(
            observation, state=self._memory[0], episode_start=first, deterministic=True
        )
        return np.asarray(action)


def policy_of(algorithm: str, model: BaseAlgorithm) -> TrainedPolicy:
    """The policy of a Stable-Baselines3 model; it goes on learning with the model.

    Args:
        algorithm: The algorithm's name.
        model: The agent, as Stable-Baselines3 has it.
    """
    options = {key: value for key, value in model.policy_kwargs.items() if not key.startswith("optimizer_")}
    if isinstance(model.policy, SharedPolicy):
        options["shared"] = True
    if options.pop("features_extractor_class", None) is BudgetWaves:
        options["budget_waves"] = options.pop("features_extractor_kwargs")["waves"]
    names = {activation: name for name, activation in ACTIVATIONS.items()}
    architecture = {
        "hidden": list(options.pop("net_arch")),
        "activation": names[options.pop("activation_fn")],
        "options": options,
    }
    return TrainedPolicy(algorithm, architecture, model.policy)


def act_zero(policy: TrainedPolicy) -> None:
    """The policy's action without exploring is 0 until it learns: as a correction, the prior's plan (arXiv 1812.06298).

    Args:
        policy: Whose actions lie in a box.
    """
    network: Any = policy.network
    actors = [network] if hasattr(network, "action_net") else [network.actor, getattr(network, "actor_target", None)]
    for actor in actors:
        if actor is not None:
            head = actor.action_net if actor is network else actor.mu
            last = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


def normalised(policy: TrainedPolicy, rows: NDArray[np.float64]) -> None:
    """A transferable policy reads features from now on as deviations from these groups' [groups, features].

    Args:
        policy: The trained policy.
        rows: What is seen of each group [groups, features].
    """
    network: Any = policy.network
    network.normalise(torch.as_tensor(rows, dtype=torch.float32))


def normaliser_of(policy: TrainedPolicy) -> dict[str, tuple[float, float]]:
    """Feature → the centre and the spread that a transferable policy reads it by; losses as log10 of nats."""
    normaliser = next(module for module in policy.network.modules() if isinstance(module, Normaliser))
    pairs = zip(normaliser.centre.tolist(), normaliser.spread.tolist(), strict=True)
    return dict(zip(ROW_FEATURES, pairs, strict=True))


def network_class(algorithm: str, architecture: Mapping[str, Any]) -> type[BasePolicy]:
    """What Stable-Baselines3 takes for `policy`.

    Args:
        algorithm: The algorithm's name.
        architecture: The network's settings, in JSON's values.
    """
    if architecture["options"].get("shared"):
        return SharedPolicy
    if algorithm == "TD3" and "encoder" in architecture["options"]:
        return TransferableTD3Policy
    if architecture["options"].get("n_critics") and algorithm in ENSEMBLES:
        return ENSEMBLES[algorithm]
    return ALGORITHMS[algorithm].policy_aliases["MlpLstmPolicy" if algorithm in RECURRENT else "MlpPolicy"]


def network_arguments(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Stable-Baselines3's `policy_kwargs` for {"hidden": [64, 64], "activation": "tanh", "options": {…}}."""
    options = {key: value for key, value in architecture["options"].items() if key != "shared"}
    if waves := options.pop("budget_waves", 0):
        options |= {"features_extractor_class": BudgetWaves, "features_extractor_kwargs": {"waves": waves}}
    return {
        "net_arch": list(architecture["hidden"]),
        "activation_fn": ACTIVATIONS[architecture["activation"]],
        **options,
    }


def build_network(
    algorithm: str,
    architecture: Mapping[str, Any],
    *,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> BasePolicy:
    """A network of a policy's architecture with fresh weights.

    Args:
        algorithm: The algorithm's name.
        architecture: The network's settings, in JSON's values.
        observation_space: Of the environment.
        action_space: Of the environment.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; known are {list(ALGORITHMS)}")
    policy_class = network_class(algorithm, architecture)
    arguments = network_arguments(architecture)
    # A learning rate is asked for though nothing is trained here.
    return policy_class(observation_space, action_space, lr_schedule=lambda _: 0.0, **arguments)
