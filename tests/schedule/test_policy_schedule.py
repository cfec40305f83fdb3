"""A policy on disk decides in a training as its agent does in the environment."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.schedule.engine import CHECKPOINT, train_pruned
from autoprune.schedule.policy_schedule import policy_schedule, save_policy_schedule
from autoprune.schedule.schedule_env import ScheduleEnv
from autoprune.schedule.signals import FEATURES
from tests.schedule.training_tasks import digits_task


def network() -> nn.Sequential:
    """Any: its weights are drawn so that it decides otherwise in other states."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Linear(len(FEATURES), 8), nn.Tanh(), nn.Linear(8, 4))
        layers[2].bias.data = torch.tensor([0.0, 0.3, 0.3, -1.0])
        return layers


def test_a_policy_trains_as_in_its_environment_and_goes_on_bit_for_bit(
    tmp_path: Path, checkpoints: list[bytes]
) -> None:
    save_policy_schedule(network(), tmp_path / "policy", decisions=3, card={"date": "today"})
    schedule = policy_schedule(policy=str(tmp_path / "policy"))
    env = ScheduleEnv(task=digits_task("dense"), levels=4, density=0.1, steps=12, decisions=3)
    observation, _ = env.reset()
    densities, over = [], False
    while not over:
        action = int(network()(torch.from_numpy(observation)).argmax())
        observation, _, over, _, info = env.step(action)
        densities.append(env.pruning.history[-1]["density"])
    whole = train_pruned(digits_task("dense"), schedule, env.pruning.goal, folder=tmp_path / "whole")
    assert [record["density"] for record in whole.history] == densities
    assert len(set(densities)) > 1
    for key, value in info["pruned"].network.state_dict().items():
        assert torch.equal(value, whole.network.state_dict()[key])
    for number, state in enumerate(list(checkpoints)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / CHECKPOINT).write_bytes(state)
        again = train_pruned(digits_task("dense"), schedule, env.pruning.goal, folder=folder)
        assert again.history == whole.history
        for key, value in again.network.state_dict().items():
            assert torch.equal(value, whole.network.state_dict()[key])


def test_the_shipped_policy_opens_and_others_are_refused(tmp_path: Path) -> None:
    assert policy_schedule(policy="shipped").decisions == 5
    with pytest.raises(FileNotFoundError, match=r"schedule\.policy=nowhere needs"):
        policy_schedule(policy="nowhere")
    save_policy_schedule(network(), tmp_path / "policy", decisions=3, card={})
    card = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(card | {"features": ["density"]}))
    with pytest.raises(ValueError, match="written for other features"):
        policy_schedule(policy=str(tmp_path / "policy"))
    for other in (nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(len(FEATURES), 2), nn.Sigmoid())):
        with pytest.raises(ValueError, match="linear layers from 17 features"):
            save_policy_schedule(other, tmp_path / "policy", decisions=3, card={})
