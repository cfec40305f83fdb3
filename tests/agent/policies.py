"""Trained policies of every kind, and records of their training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from autoprune.agent.learn import learn
from autoprune.agent.policy_file import sealed
from autoprune.agent.trained_policy import TrainedPolicy, build_network
from autoprune.agent.training_record import TrainingRecord
from autoprune.env.episodes import HIGHEST, LOWEST
from autoprune.env.transfer_features import ROW_FEATURES
from tests.agent.environments import environment_for, small_agent

TRAINING = TrainingRecord(
    features=["depth", "units", "budget"],
    mode="one_shot",
    actions="densities",
    tasks=["digits"],
    budget="macs:0.5",
    seeds=[0],
    evaluations=8,
)


def learned_policy(algorithm: str) -> TrainedPolicy:
    env = environment_for(algorithm, steps=1)
    return learn(
        small_agent(algorithm, updates=2),
        env=env,
        episode_steps=1,
        episodes=8,
        seed=0,
        on_metrics=lambda metrics, step: None,
    ).policy


def change(folder: Path, **changes: Any) -> None:
    """Another record, and one that its seal fits."""
    path = folder / "policy.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(sealed(record, weights=(folder / "policy.safetensors").read_bytes())))


ELSEWHERE = replace(
    TRAINING,
    score="kl",
    budgets={"macs": (0.2, 0.8), "params": (0.3, 0.9)},
    max_log_correction=0.7,
    prior="sensitivity",
    curves=True,
    normaliser={"depth": (0.5, 0.25)},
    held_out=[
        {"network": "mobilenet_v1", "family": "depthwise", "budget": "macs:0.5", "score": 0.625, "sensitivity": 0.5}
    ],
)


GROUPS = 6  # trained with


def carried(encoder: str, *, groups: int = GROUPS) -> TrainedPolicy:
    architecture = {
        "hidden": [8, 8],
        "activation": "relu",
        "options": {"encoder": encoder, "max_log_correction": 0.7, "n_critics": 2},
    }
    network = build_network(
        "TD3",
        architecture,
        observation_space=spaces.Box(LOWEST, HIGHEST, (groups * (len(ROW_FEATURES) + groups),), np.float32),
        action_space=spaces.Box(-1, 1, (groups,), np.float32),
    )
    with torch.no_grad():  # it begins at the prior, where all networks act alike
        for weight in network.parameters():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(weight.numel()))
    return TrainedPolicy("TD3", architecture, network)
