"""A policy that reads any number of groups is loaded for another number than it was trained with, and acts the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.agent.bundle import load_policy, save_policy
from autoprune.agent.encoders import ENCODERS
from autoprune.env.episodes import HIGHEST, LOWEST
from autoprune.env.transfer_features import ROW_FEATURES, column, padded
from tests.agent.policies import ELSEWHERE, GROUPS, carried, change

TRAINING = replace(ELSEWHERE, features=ROW_FEATURES, actions="corrections to the sensitivity plan")


def observed(present: int, *, groups: int) -> NDArray[np.float32]:
    """Some network of `present` groups in a chain, padded to `groups`."""
    rng = np.random.default_rng(present)
    rows = rng.uniform(0.1, 0.9, (present, len(ROW_FEATURES)))
    rows[:, column("present")] = 1
    return padded(rows, np.eye(present, k=1) + np.eye(present, k=-1), groups=groups)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_policy(carried("gnn"), tmp_path, training=TRAINING)
    return tmp_path


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_it_acts_the_same_for_any_number_of_groups(encoder: str, tmp_path: Path) -> None:
    policy = carried(encoder)
    save_policy(policy, tmp_path, training=TRAINING)
    for groups in (4, GROUPS, 40):
        loaded = load_policy(tmp_path, groups=groups, features=ROW_FEATURES)
        assert loaded.network.action_space.shape == (groups,)
        actions = loaded.act(observed(4, groups=groups))
        assert np.allclose(actions[:4], policy.act(observed(4, groups=GROUPS))[:4], atol=1e-5)
        assert np.ptp(actions[:4]) > 0.01
        assert not actions[4:].any()


def test_without_a_number_it_has_the_trained_one(saved: Path) -> None:
    assert load_policy(saved).network.action_space.shape == (GROUPS,)


def test_a_network_has_groups(saved: Path) -> None:
    with pytest.raises(ValueError, match="groups=0"):
        load_policy(saved, groups=0)


def test_an_observation_that_is_not_of_its_features_is_refused(saved: Path) -> None:
    change(saved, observation={"kind": "box", "low": LOWEST, "high": HIGHEST, "shape": [7]})
    with pytest.raises(ValueError, match=rf"{GROUPS} groups.*{len(ROW_FEATURES)} features"):
        load_policy(saved)


def test_an_encoder_that_does_not_exist_is_refused(saved: Path) -> None:
    architecture = json.loads((saved / "policy.json").read_text())["architecture"]
    change(saved, architecture=architecture | {"options": architecture["options"] | {"encoder": "horse"}})
    with pytest.raises(ValueError, match="'horse' is missing or unknown"):
        load_policy(saved)


def test_the_card_says_how_it_is_used_on_another_network(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    assert "encoder gnn" in card
    assert "It reads any number of groups" in card
    assert "autoprune apply policy=PATH task=" in card
    assert 'Policy.load(path).plan(task, "macs:0.4")' in card
