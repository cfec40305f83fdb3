"""A bundle is loaded for what it fits: observations of the same features, networks of as many groups as it can read."""

from pathlib import Path

import pytest

from autoprune.agent.bundle import load_policy, save_policy
from tests.agent.policies import TRAINING, learned_policy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_policy(learned_policy("PPO"), tmp_path, training=TRAINING)
    return tmp_path


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
