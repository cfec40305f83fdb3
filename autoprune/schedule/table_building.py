"""Trains every schedule of a small network, beginnings once, and goes on where it was cut off."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.files import atomic_write
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedule_env import ScheduleEnv
from autoprune.schedule.schedule_table import CHOICES, DECISIONS, ScheduleTable, nodes_above
from autoprune.schedule.signals import FEATURES, accuracy_of
from autoprune.schedule.training_env import EpisodeSettings
from autoprune.task.shipped import digits_roles
from autoprune.task.task import Task

MEASURES = ("search_loss", "search_accuracy", "test_loss", "test_accuracy")
SETTINGS: Mapping[str, Any] = {"density": 0.05, "steps": 200, "decisions": DECISIONS, "counted": "steps"}
RECIPE = TrainingRecipe(batch_size=64, learning_rate=0.1)

OnProgress = Callable[[int, int], None]  # (parts done, of)


def digits_mlp() -> nn.Module:
    """Three linear layers for 8×8 digits: 4,464 weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10))


def digits_cnn() -> nn.Module:
    """Three convolutions with BatchNorm and a linear layer for 8×8 digits: 4,168 weights."""
    channels, parts = (1, 8, 16, 16), list[nn.Module]()
    for before, after, stride in zip(channels, channels[1:], (2, 2, 1), strict=False):
        parts += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(64, 10))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"digits_mlp": digits_mlp, "digits_cnn": digits_cnn}


def table_env(name: str, *, seed: int, remembered: int = 16) -> ScheduleEnv:
    """Returns the environment that a table answers for.

    Args:
        name: Of the network.
        seed: Of initialisation and data order: a row of the table.
        remembered: Beginnings of episodes that are kept.
    """
    data = digits_roles()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name]()
    task = Task(model, data.train.inputs[:1], data, name=name)
    return ScheduleEnv(task=task, levels=CHOICES, recipe=RECIPE, seed=seed, remembered=remembered, **SETTINGS)


def build_schedule_table(
    name: str, *, seeds: int, folder: Path, card: Mapping[str, Any], on_progress: OnProgress = lambda _, __: None
) -> ScheduleTable:
    """Returns the table of a network; what was trained before lies in the folder and is not trained again.

    Args:
        name: Of the network.
        seeds: Rows of the table.
        folder: Keeps a file for every seed and first choice.
        card: More of what the table says of itself.
        on_progress: Called after each of these parts.
    """
    parts = [(seed, first) for seed in range(seeds) for first in range(CHOICES)]
    for done, (seed, first) in enumerate(parts, start=1):
        file = folder / f"{name}_{seed}_{first}.npz"
        if not file.is_file():
            arrays = _subtree(table_env(name, seed=seed), first)
            with atomic_write(file, durable=True) as partial, partial.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
        on_progress(done, len(parts))
    loaded = [dict(np.load(folder / f"{name}_{seed}_{first}.npz")) for seed, first in parts]
    rows = [loaded[CHOICES * seed : CHOICES * (seed + 1)] for seed in range(seeds)]
    measured = {
        key: np.stack([np.stack([part[key] for part in row]) for row in rows]).astype(np.float32)
        for key in (*MEASURES, "macs")
    }
    features = np.stack([_joined([part["features"] for part in row], row[0]["start"]) for row in rows])
    lookahead = np.stack([_joined([part["lookahead"] for part in row], row[0]["start_lookahead"]) for row in rows])
    env = table_env(name, seed=0)
    full = {
        **card,
        "network": name,
        "target": env.pruning.target / env.pruning.masking.total,
        "weights": env.pruning.masking.total,
        "settings": {key: getattr(env.settings, key) for key in EpisodeSettings.__slots__ if key != "remembered"},
        "recipe": {key: getattr(RECIPE, key) for key in TrainingRecipe.__slots__},
        "data": env.task.data.digests,
        "seeds": seeds,
    }
    macs = measured.pop("macs")
    return ScheduleTable(
        json.loads(json.dumps(full)), measured, macs, features.astype(np.float16), lookahead.astype(np.float32)
    )


def _subtree(env: ScheduleEnv, first: int) -> dict[str, Any]:
    """Everything of the schedules that begin with one choice; those that have reached the target are one."""
    env.reset()
    start, start_lookahead = env._moment.signals.array, env._moment.signals.lookahead
    arrays: dict[str, Any] = {key: np.zeros([CHOICES] * (DECISIONS - 1)) for key in (*MEASURES, "macs")}
    nodes = nodes_above(DECISIONS - 1)
    arrays |= {"features": np.zeros((nodes, len(FEATURES))), "lookahead": np.zeros(nodes)}

    def visit(path: tuple[int, ...]) -> None:
        env.reset()
        info: dict[str, Any] = {}
        for action in path:
            *_, info = env.step(action)
        inner = path[1:]
        if len(path) == DECISIONS:
            values = _measured(env, info)
            for key, value in values.items():
                arrays[key][inner] = value
            return
        at = _row(inner)
        arrays["features"][at], arrays["lookahead"][at] = env._moment.signals.array, env._moment.signals.lookahead
        if env.next_density(1.0) >= env.pruning.density:  # nothing is left to decide
            visit((*path, 0))
            for choice in range(1, CHOICES):
                _copy(arrays, inner, choice)
            return
        for choice in range(CHOICES):
            visit((*path, choice))

    visit((first,))
    return {**arrays, "start": start, "start_lookahead": start_lookahead}


def _measured(env: ScheduleEnv, info: Mapping[str, Any]) -> dict[str, float]:
    data = env.task.data
    return {
        "search_loss": info["loss"],
        "search_accuracy": info["accuracy"],
        "test_loss": env.meter.loss(data.test),
        "test_accuracy": accuracy_of(env.pruning, data.test),
        "macs": info["pruned"].macs,
    }


def _copy(arrays: dict[str, Any], inner: tuple[int, ...], choice: int) -> None:
    """What follows on one choice is what follows on choice 0."""
    for key in (*MEASURES, "macs"):
        arrays[key][(*inner, choice)] = arrays[key][(*inner, 0)]
    for depth in range(DECISIONS - 2 - len(inner)):
        for rest in np.ndindex(*[CHOICES] * depth):
            source, target = _row((*inner, 0, *rest)), _row((*inner, choice, *rest))
            arrays["features"][target] = arrays["features"][source]
            arrays["lookahead"][target] = arrays["lookahead"][source]


def _row(inner: tuple[int, ...]) -> int:
    """Of the state after these choices, the first one left out."""
    row = 0
    for choice in inner:
        row = row * CHOICES + choice
    return row + nodes_above(len(inner))


def _joined(parts: list[Any], start: Any) -> Any:
    """The rows of all first choices, depth by depth, as `ScheduleTable.node` counts them."""
    rows, at = [np.asarray(start)[None]], 0
    for depth in range(DECISIONS - 1):
        size = CHOICES**depth
        rows += [part[at : at + size] for part in parts]
        at += size
    return np.concatenate(rows)
