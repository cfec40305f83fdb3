"""A saved policy acts as it did, needs no pickle, and is refused with the reason when it is damaged."""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.agent.agent_spec import ALGORITHMS
from autoprune.agent.bundle import load_policy, load_training, save_policy
from autoprune.agent.policy_file import SCHEMA
from autoprune.agent.training_record import TrainingRecord
from tests.agent.policies import ELSEWHERE, TRAINING, change, learned_policy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_policy(learned_policy("PPO"), tmp_path, training=TRAINING)
    return tmp_path


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_loaded_policy_acts_as_the_saved_one(algorithm: str, tmp_path: Path) -> None:
    policy = learned_policy(algorithm)
    save_policy(policy, tmp_path, training=TRAINING)
    loaded = load_policy(tmp_path)
    assert loaded.algorithm == algorithm
    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        assert np.array_equal(loaded.act(observation), policy.act(observation))


def test_all_that_is_known_of_its_training_is_kept(tmp_path: Path) -> None:
    save_policy(learned_policy("TD3"), tmp_path, training=ELSEWHERE)
    assert load_training(tmp_path) == ELSEWHERE


def test_the_card_says_how_far_it_may_be_trusted(tmp_path: Path) -> None:
    save_policy(learned_policy("TD3"), tmp_path, training=ELSEWHERE)
    card = (tmp_path / "README.md").read_text()
    assert "| macs | 0.2 to 0.8 of dense |" in card
    assert "| mobilenet_v1 | depthwise | macs:0.5 | 0.62 | 0.50 |" in card
    assert "every group's loss when it is pruned alone and the sensitivity plan" in card
    assert "Budgets outside the ranges above, and in other costs than macs, params, were never practised" in card
    assert "fits the network that it was trained on, and no other" in card
    assert "autoprune apply" not in card  # of a policy that can't be carried


def test_the_record_says_what_wrote_it_and_when(saved: Path) -> None:
    record = json.loads((saved / "policy.json").read_text())
    assert record["autoprune"] == importlib.metadata.version("autoprune")
    assert (datetime.now(UTC).date() - date.fromisoformat(record["saved"])).days in (0, 1)
    assert record["observation_version"] == 1
    assert record["sha256"]["weights"] == hashlib.sha256((saved / "policy.safetensors").read_bytes()).hexdigest()


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    load_policy(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bundle_is_three_files_and_none_is_a_pickle(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"policy.safetensors", "policy.json", "README.md"}


def test_a_bundle_can_be_written_again(saved: Path) -> None:
    save_policy(learned_policy("SAC"), saved, training=TRAINING)
    assert load_policy(saved).algorithm == "SAC"


def test_a_folder_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no policy"):
        load_policy(tmp_path)


@pytest.mark.parametrize("schema", [1, SCHEMA + 1, None, "1"])
def test_an_unknown_schema_is_refused(saved: Path, schema: Any) -> None:
    change(saved, schema=schema)
    with pytest.raises(ValueError, match=rf"schema {schema!r}.*reads {SCHEMA}"):
        load_policy(saved)


def test_another_meaning_of_features_is_refused(saved: Path) -> None:
    change(saved, observation_version=2)
    with pytest.raises(ValueError, match="has observation version 2, this version reads 1: use the version that wrote"):
        load_policy(saved)


def test_an_edited_record_is_refused(saved: Path) -> None:
    path = saved / "policy.json"
    path.write_text(path.read_text().replace('"macs:0.5"', '"macs:0.1"'))
    with pytest.raises(ValueError, match="was changed after it was saved"):
        load_policy(saved)


def test_missing_weights_are_refused(saved: Path) -> None:
    (saved / "policy.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    change(saved, architecture={"hidden": [8], "activation": "relu", "options": {"use_sde": False}})
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(saved)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    policy = learned_policy("PPO")
    with torch.no_grad():
        next(policy.network.parameters()).flatten()[0] = torch.nan
    save_policy(policy, tmp_path, training=TRAINING)
    with pytest.raises(ValueError, match="weights that are not finite"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "DDPQ"}, "unknown algorithm 'DDPQ'"),
        ({"architecture": {"hidden": [64]}}, "'options'"),
        ({"architecture": {"hidden": [64], "options": {}}}, "'activation'"),
        ({"observation": {"kind": "sphere"}}, "unknown space 'sphere'"),
        ({"observation": {"kind": "unbounded", "shape": [10**12]}}, "sizes of a space must be whole"),
        ({"observation": {"kind": "unbounded", "shape": [True]}}, "sizes of a space"),
        ({"action": {"kind": "box", "low": -1, "high": [1, 1, 1], "shape": [2]}}, "broadcast"),
        ({"action": None}, "'action' must be of type dict"),
        ({"architecture": {"hidden": [10**9], "activation": "relu", "options": {}}}, "must be at most 4096, got 10{9}"),
        ({"architecture": {"hidden": [-8], "activation": "relu", "options": {}}}, "negative dimension"),
        (
            {"architecture": {"hidden": [8], "activation": "relu", "options": {"features_extractor_class": "os"}}},
            "call",
        ),
        ({"architecture": {"hidden": [8], "activation": "relu", "options": {"wings": 2}}}, "wings"),
    ],
)
def test_a_record_that_describes_no_policy_is_refused(saved: Path, changes: dict[str, Any], message: str) -> None:
    change(saved, **changes)
    with pytest.raises(ValueError, match=f"does not describe a policy.*{message}"):
        load_policy(saved)


def test_training_that_cannot_have_been_is_refused(saved: Path) -> None:
    change(saved, training=json.loads((saved / "policy.json").read_text())["training"] | {"max_log_correction": -1})
    for load in (load_policy, load_training):
        with pytest.raises(ValueError, match=r"training.max_log_correction"):
            load(saved)


def test_an_observation_of_another_shape_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="observation shape"):
        load_policy(saved).act(np.zeros(5, np.float32))


# A bundle is loaded for what it fits: observations of the same features, networks of as many groups as it can read
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["depth", "units", "share"], r"\['budget'\].*\['share'\]"),
        (["units", "depth", "budget"], r"'depth'.*'units'"),
        (["depth", "units", "budget", "units"], "it reads 3 features, .* here there are 4"),
    ],
)
def test_other_features_are_refused(saved: Path, features: list[str], message: str) -> None:
    assert load_policy(saved, features=TRAINING.features).algorithm == "PPO"
    with pytest.raises(ValueError, match=message):
        load_policy(saved, features=features)


def test_a_policy_of_one_network_is_not_carried(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be carried to a network of 7 groups: it has no encoder"):
        load_policy(saved, groups=7)


# What is said of a policy's training can be true, or it is refused
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": {"macs": [0.2, 1.5]}}, r"budgets must be .*\(0, 1\].*got {'macs': \[0.2, 1.5\]}"),
        ({"budgets": {"macs": [0.2, 0.3, 0.4]}}, "budgets must be .*a list of 2"),
        ({"budgets": {"macs": [0.8, 0.2]}}, "budgets of 'macs' must be"),
        ({"max_log_correction": 0}, r"max_log_correction must be in \(0, inf\) or None, got 0"),
        ({"normaliser": {"depth": [0.0, 0.0]}}, "normaliser of 'depth' must be .*spread > 0"),
        ({"normaliser": {"width": [0.0, 1.0]}}, r"normaliser must be of features, .*got \['width'\]"),
        ({"normaliser": {"depth": [float("nan"), 1.0]}}, "normaliser must be"),
        ({"held_out": [{"network": "a"}]}, "held_out's family must be a text, got None"),
        ({"seeds": [0.5]}, "seeds must be a list of which each is a whole number"),
        ({"wings": 2}, r"unknown \['wings'\]"),
    ],
)
def test_what_is_said_of_a_training_can_be_true_or_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^training.*{message}"):
        TrainingRecord.read(asdict(ELSEWHERE) | changes)


def test_training_is_read_as_it_was_written() -> None:
    assert TrainingRecord.read(asdict(ELSEWHERE)) == ELSEWHERE


def test_what_lacks_is_named() -> None:
    written = asdict(ELSEWHERE)
    del written["seeds"]
    with pytest.raises(ValueError, match=r"lacking \['seeds'\]"):
        TrainingRecord.read(written)
