"""Environments whose best actions are known, and agents small enough to learn in them in a second."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from autoprune.agent.agent_spec import AgentSpec, Replay, Rollout
from autoprune.agent.noise import AnnealedGaussian
from autoprune.evaluation.metered import EvaluationsSpent

FEATURES = 3


class KnownAnswer(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The return, given at the last of `steps` steps, is −mean(action − best)². Actions are clipped to `bound`."""

    def __init__(self, best: NDArray[np.float64], *, steps: int, bound: float = 1.0, limit: int | None = None) -> None:
        self.best, self.steps, self.bound, self.limit = best.reshape(steps, -1), steps, bound, limit
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (FEATURES,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (self.best.shape[1],), np.float32)
        self.proposed: list[Any] = []
        self.executed: list[Any] = []
        self.returns: list[float] = []
        self.reset_seeds: list[int | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.reset_seeds.append(seed)
        self.loss, self.at = 0.0, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        last = self.at == self.steps - 1
        if last and self.limit is not None and len(self.returns) == self.limit:
            raise EvaluationsSpent
        executed = self.execute(action)
        self.proposed.append(np.array(action))
        self.executed.append(executed)
        self.loss += float(np.mean((self.value(executed) - self.best[self.at]) ** 2)) / self.steps
        self.at += 1
        if last:
            self.returns.append(-self.loss)
        return self._observe(), -self.loss if last else 0.0, last, False, {"executed_action": executed}

    def execute(self, action: Any) -> Any:
        return np.clip(action, -self.bound, self.bound).astype(np.float32)

    def value(self, executed: Any) -> Any:
        return executed

    def _observe(self) -> NDArray[np.float32]:
        place = self.at / self.steps
        return np.array([place, np.sin(3 * place), 1.0], np.float32)


class KnownLevel(KnownAnswer):
    """The same with 5 levels between −1 and 1 to choose from; the last is executed as the one before it."""

    def __init__(self, best: NDArray[np.float64], *, steps: int) -> None:
        super().__init__(best, steps=steps)
        self.action_space = gymnasium.spaces.Discrete(5)  # type: ignore[assignment]

    def execute(self, action: Any) -> Any:
        return min(int(action), 3)

    def value(self, executed: Any) -> Any:
        return executed / 2 - 1


ON_POLICY = ("A2C", "PPO", "RecurrentPPO")
GAUSSIAN_NOISE = AnnealedGaussian(sigma=0.3, final_sigma=0.05, fraction=0.8)


def small_agent(algorithm: str, *, updates: int = 10, **changes: Any) -> AgentSpec:
    """A working agent of any algorithm; `changes` replace its settings. updates: in an episode, off policy."""
    common: dict[str, Any] = {"algorithm": algorithm, "hidden": (32, 32), "activation": "relu"}
    if algorithm in ON_POLICY:
        rates = {"learning_rate": 0.003} if algorithm == "A2C" else {"learning_rate": 0.01, "n_epochs": 10}
        common |= {
            "experience": Rollout(episodes=4 if algorithm == "A2C" else 8),
            "initial_std": 0.3,
            "memory": 16 if algorithm == "RecurrentPPO" else None,
            "hyperparameters": {"gamma": 1.0, **rates},
        }
        return AgentSpec(**common | changes)
    hyperparameters: dict[str, Any] = {"gamma": 1.0, "learning_rate": 0.003, "batch_size": 32}
    if algorithm == "CrossQ":  # it has no target networks, and learns slower
        hyperparameters |= {"learning_rate": 0.01}
    else:
        hyperparameters |= {"tau": 0.05}
    if algorithm != "DQN":
        common |= {"actor_learning_rate": 0.01 if algorithm == "CrossQ" else 0.001}
    if algorithm == "DQN":
        hyperparameters |= {"target_update_interval": 1, "exploration_fraction": 0.6}
    if algorithm in ("CrossQ", "SAC", "TQC"):
        hyperparameters |= {"ent_coef": "auto_0.01"}
        common |= {"initial_std": 0.3}
    if algorithm in ("DDPG", "TD3"):
        common |= {"noise": GAUSSIAN_NOISE}
    experience = Replay(200, warm_up_episodes=5, updates_per_episode=updates, keep_proposed=algorithm == "DQN")
    return AgentSpec(**common | {"experience": experience, "hyperparameters": hyperparameters} | changes)


def environment_for(algorithm: str, *, steps: int) -> KnownAnswer:
    """The continuous environment, or the one with levels for DQN; the best actions are well inside."""
    if algorithm == "DQN":
        return KnownLevel(np.resize([-0.5, 0.5, 0.0], steps), steps=steps)
    return KnownAnswer(np.resize([-0.4, 0.4], max(2, steps)), steps=steps)
