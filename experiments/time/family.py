"""An agent and cubic schedules, learned on a family of small networks at the same cost and judged on others."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from torch.nn import functional as F

from autoprune.schedule.decision import PruningGoal, Schedule
from autoprune.schedule.engine import train_pruned
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedule_env import ScheduleEnv
from autoprune.schedule.schedules import cubic, one_shot, rigl
from autoprune.task.fashion_mnist import fashion_subset
from autoprune.task.shipped import digits_roles
from autoprune.task.task import Role, Roles, Task, outputs_of
from experiments.time.agent import Scaled

DENSITY, STEPS, DECISIONS, LEVELS = 0.05, 60, 5, 6  # 95 % gone in less than a third of the steps of the tables
RECIPE = TrainingRecipe(batch_size=64, learning_rate=0.1)
TRIED = 50  # schedules that each method may train on every network of the family
REMEMBERED = 1500  # intervals of each network that are kept, so that all methods and seeds train them once
Choices = Sequence[int]


def mlp(*widths: int) -> nn.Module:
    """Linear layers of these widths, with ReLU between them."""
    parts: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def cnn(*channels: int, side: int) -> nn.Module:
    """Convolutions with BatchNorm, every second one halving the side, and a linear layer."""
    parts: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise((1, *channels))):
        stride = 1 + (number % 2 == 0)
        side = -(-side // stride)
        parts += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels[-1] * side**2, 10))


LEARNED_ON: Mapping[str, Callable[[], nn.Module]] = {
    "digits_mlp": partial(mlp, 64, 48, 24, 10),
    "digits_wide": partial(mlp, 64, 96, 10),
    "digits_cnn": partial(cnn, 8, 16, 16, side=8),
    "fashion_mlp": partial(mlp, 49, 64, 32, 10),
}
KEPT_OUT: Mapping[str, Callable[[], nn.Module]] = {
    "digits_deep": partial(mlp, 64, 40, 40, 40, 10),
    "digits_cnn_wide": partial(cnn, 12, 24, 24, side=8),
    "fashion_wide": partial(mlp, 49, 100, 10),
    "fashion_cnn": partial(cnn, 8, 16, 24, side=7),
}


@cache
def roles(data: str) -> Roles:
    """Returns 8×8 digits, or Fashion-MNIST's subset in 7×7."""
    if data == "digits":
        return digits_roles()

    def small(role: Role) -> Role:
        return Role(F.avg_pool2d(role.inputs, 4), role.targets, role.ids)

    whole = fashion_subset()
    return Roles(small(whole.train), small(whole.calibration), small(whole.search), small(whole.test))


@cache
def task(name: str) -> Task:
    data = roles(name.partition("_")[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = {**LEARNED_ON, **KEPT_OUT}[name]()
    return Task(model, data.train.inputs[:1], data, name=name)


def environment(name: str, seed: int = 0, remembered: int = 0) -> ScheduleEnv:
    settings: dict[str, Any] = {"density": DENSITY, "steps": STEPS, "decisions": DECISIONS, "counted": "steps"}
    return ScheduleEnv(task=task(name), levels=LEVELS, recipe=RECIPE, seed=seed, remembered=remembered, **settings)


@cache
def family() -> list[ScheduleEnv]:
    """Returns the environments that are learned on; what was trained in them is kept for all methods and seeds."""
    return [environment(name, remembered=REMEMBERED) for name in LEARNED_ON]


def family_cells(cell: Callable[[str, str, Callable[[], list[Any]]], list[Any]], *, seeds: int) -> None:
    """Every method and seed has its cell: what it learned on the family, on each network that was kept out."""
    methods: dict[str, Callable[[int], Callable[[str, int], dict[str, float]]]] = {
        "cubic_tpe": _tuned_cubic,
        "dqn": partial(_dqn, learning_rate=1e-3),
        "dqn_learning_off": partial(_dqn, learning_rate=0.0),
        "random": _random,
        "cubic_default": lambda _: partial(_scheduled, cubic()),
        "one_shot": lambda _: partial(_scheduled, one_shot()),
        "rigl": lambda _: partial(_scheduled, rigl(decisions=DECISIONS)),
    }

    def rows(method: str, seed: int) -> list[Any]:
        train = methods[method](seed)
        return [{"method": method, "seed": seed, "network": name, **train(name, seed)} for name in KEPT_OUT]

    cells = sorted(product(range(seeds), methods), key=lambda each: each[1] == "random")  # which no rule needs
    for seed, method in cells:
        cell("family", f"{method}_{seed}", partial(rows, method, seed))


def _scheduled(schedule: Schedule, name: str, seed: int) -> dict[str, float]:
    """How good a network is that was trained under a schedule."""
    goal = PruningGoal(density=DENSITY, steps=STEPS, counted="steps", start="initial")
    return _judged(name, train_pruned(task(name), schedule, goal, recipe=RECIPE, seed=seed).network)


def _judged(name: str, network: nn.Module) -> dict[str, float]:
    measured, of = dict[str, float](), task(name)
    for key, role in (("search", of.data.search), ("test", of.data.test)):
        outputs = outputs_of(network.eval(), role.inputs, of.forward)
        measured[f"{key}_loss"] = float(of.loss(outputs, role.targets))
        measured[f"{key}_accuracy"] = float(of.metric(outputs, role.targets))
    return measured


def _played(env: ScheduleEnv, act: Callable[[Any, int], int]) -> dict[str, Any]:
    """The info at the end of an episode of these actions."""
    observation, _ = env.reset()
    for number in range(DECISIONS):
        observation, *_, info = env.step(act(observation, number))
    return info


def _kept_out(act: Callable[[Any, int], int], name: str, seed: int) -> dict[str, Any]:
    chosen: list[int] = []

    def noted(observation: Any, number: int) -> int:
        chosen.append(act(observation, number))
        return chosen[-1]

    info = _played(environment(name, seed), noted)
    return {"choices": chosen, **_judged(name, info["pruned"].network)}


def _dqn(seed: int, *, learning_rate: float) -> Callable[[str, int], dict[str, Any]]:
    """The policy without exploring, after as many episodes of every network as other methods train schedules."""
    envs = DummyVecEnv([partial(Scaled, env) for env in family()])
    agent = DQN(
        "MlpPolicy", envs, learning_rate=learning_rate, seed=seed, device="cpu", gamma=1.0, buffer_size=5000,
        learning_starts=20 * DECISIONS * len(LEARNED_ON), train_freq=1, gradient_steps=16, batch_size=64,
        target_update_interval=50, exploration_fraction=0.6, policy_kwargs={"net_arch": [64, 64]},
    )  # fmt: skip
    agent.learn(TRIED * DECISIONS * len(LEARNED_ON) if learning_rate else 1)

    def act(observation: Any, _: int) -> int:
        action, _state = agent.predict(np.tanh(observation).astype(np.float32), deterministic=True)
        return int(action)

    return partial(_kept_out, act)


def _random(seed: int) -> Callable[[str, int], dict[str, Any]]:
    """The schedule of the best mean over the family, of as many random ones."""
    rng = np.random.default_rng(seed)
    tried = [tuple(int(choice) for choice in rng.integers(LEVELS, size=DECISIONS)) for _ in range(TRIED)]

    def score(choices: Choices) -> float:
        return float(np.mean([_played(env, lambda _, number: choices[number])["score"] for env in family()]))

    best = max(tried, key=score)
    return partial(_kept_out, lambda _, number: best[number])


def _tuned_cubic(seed: int) -> Callable[[str, int], dict[str, Any]]:
    """The cubic schedule of the best mean over the family, its three numbers chosen by TPE."""
    import optuna

    optuna.logging.disable_default_handler()

    def chosen(values: Mapping[str, Any]) -> Schedule:
        start, end = values["start"], values["start"] + (1 - values["start"]) * values["width"]
        most = max(1, int((end - start) * STEPS))  # a removal takes at least one step
        return cubic(start=start, end=end, decisions=min(most, values["decisions"]))

    def objective(trial: Any) -> float:
        trial.suggest_float("start", 0.0, 0.8)
        trial.suggest_float("width", 0.05, 1.0)
        trial.suggest_int("decisions", 1, 20)
        return float(np.mean([_scheduled(chosen(trial.params), name, 0)["search_loss"] for name in LEARNED_ON]))

    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=TRIED)

    def train(name: str, seed: int) -> dict[str, Any]:
        return {"cubic": study.best_params, **_scheduled(chosen(study.best_params), name, seed)}

    return train
