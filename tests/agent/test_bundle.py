"""A saved policy acts as it did, needs no pickle, and is refused with the reason when it is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.agent.bundle import SCHEMA, Training, load_policy, load_training, save_policy
from autoprune.agent.learn import learn
from autoprune.agent.policy import Policy
from autoprune.agent.spec import ALGORITHMS
from tests.agent.environments import environment_for, small_agent

TRAINING = Training(
    features=["depth", "units", "budget"],
    mode="one_shot",
    actions="densities",
    tasks=["digits"],
    budget="macs:0.5",
    seeds=[0],
    evaluations=8,
)


def learned_policy(algorithm: str) -> Policy:
    env = environment_for(algorithm, steps=1)
    return learn(
        small_agent(algorithm, updates=2),
        env=env,
        episode_steps=1,
        episodes=8,
        seed=0,
        on_metrics=lambda metrics, step: None,
    ).policy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_policy(learned_policy("PPO"), tmp_path, training=TRAINING)
    return tmp_path


def change(folder: Path, **changes: Any) -> None:
    path = folder / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_loaded_policy_acts_as_the_saved_one(algorithm: str, tmp_path: Path) -> None:
    policy = learned_policy(algorithm)
    save_policy(policy, tmp_path, training=TRAINING)
    loaded = load_policy(tmp_path)
    assert loaded.algorithm == algorithm
    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        assert np.array_equal(loaded.act(observation), policy.act(observation))


def test_what_it_was_trained_on_is_kept(saved: Path) -> None:
    assert load_training(saved) == TRAINING


def test_the_card_says_what_it_was_trained_on(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    for word in ("PPO", "digits", "macs:0.5", "one_shot", "depth, units, budget"):
        assert word in card


def test_a_bundle_is_three_files_and_none_is_a_pickle(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"policy.safetensors", "policy.json", "README.md"}


def test_a_bundle_can_be_written_again(saved: Path) -> None:
    save_policy(learned_policy("SAC"), saved, training=TRAINING)
    assert load_policy(saved).algorithm == "SAC"


def test_a_folder_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no policy"):
        load_policy(tmp_path)


@pytest.mark.parametrize("schema", [SCHEMA + 1, None, "1"])
def test_an_unknown_schema_is_refused(saved: Path, schema: Any) -> None:
    change(saved, schema=schema)
    with pytest.raises(ValueError, match=f"has schema {schema!r}, this version reads {SCHEMA}"):
        load_policy(saved)


@pytest.mark.parametrize("left", [0, 7, 500])
def test_truncated_weights_are_refused(saved: Path, left: int) -> None:
    path = saved / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(saved)


def test_missing_weights_are_refused(saved: Path) -> None:
    (saved / "policy.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    change(saved, architecture={"hidden": [8], "activation": "relu", "options": {"use_sde": False}})
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(saved)


def test_a_record_cut_short_is_refused(saved: Path) -> None:
    path = saved / "policy.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="is not JSON"):
        load_policy(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "DDPQ"}, "unknown algorithm 'DDPQ'"),
        ({"architecture": {"hidden": [64]}}, "'options'"),
        ({"architecture": {"hidden": [64], "options": {}}}, "'activation'"),
        ({"observation": {"kind": "sphere"}}, "unknown space 'sphere'"),
        ({"architecture": {"hidden": [8], "activation": "relu", "options": {"wings": 2}}}, "wings"),
    ],
)
def test_a_record_that_describes_no_policy_is_refused(saved: Path, changes: dict[str, Any], message: str) -> None:
    change(saved, **changes)
    with pytest.raises(ValueError, match=f"does not describe a policy.*{message}"):
        load_policy(saved)


def test_an_observation_of_another_shape_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="observation shape"):
        load_policy(saved).act(np.zeros(5, np.float32))
