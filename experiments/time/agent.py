"""Agents against cubic schedules, both tuned on the tables of schedules at the same cost."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

import autoprune  # noqa: F401  registers the environments
from autoprune.schedule.policy_schedule import save_policy_schedule
from autoprune.schedule.schedule_table import DECISIONS, ZOO, ScheduleTable, ScheduleTableEnv
from autoprune.schedule.schedules import cubic
from autoprune.schedule.signals import FEATURES

TABLES = ("digits_mlp", "digits_cnn")
POLICY_STEPS = 40_000
SCHEDULES, MANY = 100, 1000  # that each method may have trained
Choices = tuple[int, ...]
Wrapper = Callable[[Any], Any]


class Counted(gymnasium.Wrapper[Any, int, Any, int]):
    """Notes every schedule that is tried, and its score as the agent sees it."""

    def __init__(self, env: ScheduleTableEnv) -> None:
        super().__init__(env)
        self.tried: list[Choices] = []

    def step(self, action: int) -> Any:
        result = self.env.step(int(action))
        if result[2]:
            self.tried.append(result[4]["choices"])
        return result


class Scaled(gymnasium.ObservationWrapper[Any, int, Any]):
    """Features are squeezed into [−1, 1], so that none drowns the others."""

    def observation(self, observation: Any) -> Any:
        return np.tanh(observation).astype(np.float32)


class FewFeatures(gymnasium.ObservationWrapper[Any, int, Any]):
    """What the closest look ahead says: density, training left, loss now and at the target."""

    NAMES = ("density", "training_left", "held_out_loss", "lookahead_target")

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.columns = [list(FEATURES).index(name) for name in self.NAMES]
        self.observation_space = gymnasium.spaces.Box(-1, 1, (len(self.columns),), np.float32)

    def observation(self, observation: Any) -> Any:
        return np.tanh(observation[self.columns]).astype(np.float32)


def agent_cells(cell: Callable[[str, str, Callable[[], list[Any]]], list[Any]], *, seeds: int) -> None:
    """Every method, table and seed has its cell."""
    methods: dict[str, Callable[[str, int], dict[str, Any]]] = {
        "ppo": lambda table, seed: _sb3(PPO, table, seed, learning_rate=3e-3),
        "ppo_learning_off": lambda table, seed: _sb3(PPO, table, seed, learning_rate=0.0),
        "dqn": lambda table, seed: _sb3(DQN, table, seed, learning_rate=1e-3),
        "random": _random,
        "cubic_tpe": _cubic,
        "dqn_replayed": lambda table, seed: _sb3(
            DQN, table, seed, learning_rate=1e-3, wrapper=Scaled, gradient_steps=8
        ),
        "dqn_few_features": lambda table, seed: _sb3(DQN, table, seed, learning_rate=1e-3, wrapper=FewFeatures),
        "dqn_1000": lambda table, seed: _sb3(DQN, table, seed, learning_rate=1e-3, schedules=MANY),
        "random_1000": lambda table, seed: _random(table, seed, schedules=MANY),
        "cubic_tpe_1000": lambda table, seed: _cubic(table, seed, schedules=MANY),
        "cubic_default": lambda table, _: _of(table, [ScheduleTable.shipped(table).nearest(cubic())]),  # type: ignore[arg-type]
    }

    def all_seeds(name: str, table: str) -> list[Any]:
        number = {"cubic_default": 1, "cubic_tpe_1000": 3}.get(name, seeds)
        return [{"method": name, "table": table, "seed": s, **methods[name](table, s)} for s in range(number)]

    for table, name in product(TABLES, methods):
        cell("agent", f"{name}_{table}", partial(all_seeds, name, table))


def _of(
    table: str, tried: list[Choices], own: dict[str, Choices] | None = None, *, schedules: int = SCHEDULES
) -> dict[str, Any]:
    """The best of the schedules that were tried, and those of the policy itself, on every table."""
    tables = {name: ScheduleTable.shipped(name) for name in TABLES}  # type: ignore[arg-type]
    best = max(tried[:schedules], key=tables[table].value)
    own = own or dict.fromkeys(TABLES, best)
    return {
        "tried": len(tried[:schedules]),
        "best": best,
        "regret": tables[table].regret(best),
        "own": own,
        "own_loss": {name: -tables[name].value(choices) for name, choices in own.items()},
        "own_regret": {name: tables[name].regret(choices) for name, choices in own.items()},
        "own_test_accuracy": {name: tables[name].value(choices, "test_accuracy") for name, choices in own.items()},
    }


def _sb3(
    kind: Any, table: str, seed: int, *, learning_rate: float, schedules: int = SCHEDULES, gradient_steps: int = 1,
    wrapper: Wrapper | None = None,
) -> dict[str, Any]:  # fmt: skip
    env = Counted(ScheduleTableEnv(table=table))  # type: ignore[arg-type]
    seen = env if wrapper is None else wrapper(env)
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": [64, 64]}, "seed": seed, "device": "cpu", "gamma": 1.0}
    if kind is PPO:
        options |= {"n_steps": 5 * DECISIONS, "batch_size": 25, "n_epochs": 10, "ent_coef": 0.01}
    else:
        options |= {
            "learning_starts": 10 * DECISIONS, "train_freq": 1, "batch_size": 32, "target_update_interval": 50,
            "exploration_fraction": 0.6, "buffer_size": 5000, "gradient_steps": gradient_steps,
        }  # fmt: skip
    model = kind("MlpPolicy", seen, learning_rate=learning_rate, **options)
    model.learn(schedules * DECISIONS)
    own = {name: _greedy(model, name, wrapper) for name in TABLES}
    return _of(table, env.tried, own, schedules=schedules)


def _greedy(model: Any, table: str, wrapper: Wrapper | None = None) -> Choices:
    """The policy's own schedule: that which it makes of most of the table's seeds, the first of equals."""
    made = []
    for row in range(ScheduleTable.shipped(table).seeds):  # type: ignore[arg-type]
        plain = ScheduleTableEnv(table=table, seeds=[row])  # type: ignore[arg-type]
        env: Any = plain if wrapper is None else wrapper(plain)
        observation, _ = env.reset(seed=0)
        over, info = False, dict[str, Any]()
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, over, _, info = env.step(int(action))
        made.append(info["choices"])
    return max(made, key=made.count)


def _random(table: str, seed: int, *, schedules: int = SCHEDULES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tried = [tuple(int(c) for c in rng.integers(6, size=DECISIONS)) for _ in range(schedules)]
    return _of(table, tried, schedules=schedules)


def _cubic(table: str, seed: int, *, schedules: int = SCHEDULES) -> dict[str, Any]:
    import optuna

    optuna.logging.disable_default_handler()
    judged, tried = ScheduleTable.shipped(table), list[Choices]()  # type: ignore[arg-type]

    def objective(trial: Any) -> float:
        start = trial.suggest_float("start", 0.0, 0.8)
        end = trial.suggest_float("end", start + 0.01, 1.0)
        choices = judged.nearest(cubic(start=start, end=end, decisions=trial.suggest_int("decisions", 1, 20)))
        tried.append(choices)
        return judged.value(choices)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=schedules)
    return _of(table, tried, schedules=schedules)


def train_policy(card: dict[str, Any]) -> None:
    """The policy that comes along learns on both tables, and its own schedules are printed."""
    env = DummyVecEnv([partial(ScheduleTableEnv, table=name) for name in TABLES])  # type: ignore[arg-type]
    options: dict[str, Any] = {"n_steps": 64 * DECISIONS, "batch_size": 64, "n_epochs": 10, "ent_coef": 0.01}
    network = {"net_arch": [64, 64]}
    model = PPO("MlpPolicy", env, seed=0, gamma=1.0, device="cpu", learning_rate=1e-3, policy_kwargs=network, **options)
    model.learn(POLICY_STEPS)
    policy: Any = model.policy
    layers = nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
    own = {name: _greedy(model, name) for name in TABLES}
    print(_of(TABLES[0], list(own.values()), own))
    save_policy_schedule(layers, ZOO / "schedule_policy", decisions=DECISIONS, card={"origin": card, "tables": TABLES})
