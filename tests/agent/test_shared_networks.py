"""One network for all groups: what it says of a group depends on it, not on its place or the number of others."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoprune.agent.bundle import load_policy, save_policy
from autoprune.agent.learn import learn
from autoprune.agent.shared_networks import SharedPolicy
from autoprune.agent.trained_policy import TrainedPolicy, build_network
from tests.agent.environments import KnownAnswer, small_agent
from tests.agent.policies import TRAINING

FEATURES = 4
Numbers = NDArray[np.float32]


def network(groups: int, *, bias: bool = False, seed: int = 0) -> SharedPolicy:
    """With weights that are all different from nothing: a fresh one's last layer is near 0."""
    box = gymnasium.spaces.Box(-1, 20, (groups * FEATURES + 1,), np.float32)
    architecture = {"hidden": [16, 8], "activation": "tanh", "options": {"shared": True, "group_bias": bias}}
    made = build_network(
        "PPO", architecture, observation_space=box, action_space=gymnasium.spaces.Box(-1, 1, (groups,), np.float32)
    )
    assert isinstance(made, SharedPolicy)
    generator = torch.Generator().manual_seed(seed)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 3
    return made


def observed(groups: int, seed: int) -> tuple[Numbers, float]:
    """Features of every group [groups, FEATURES], and a budget."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(groups, FEATURES)).astype(np.float32), float(rng.random())


def acted(policy: SharedPolicy, features: Numbers, budget: float) -> tuple[Numbers, float]:
    """Mean actions [groups], before they are clipped to the box, and the critic's value."""
    flat = torch.as_tensor(np.append(features.ravel(), np.float32(budget))[None])
    with torch.no_grad():
        distribution: Any = policy.get_distribution(flat)
        return distribution.distribution.mean[0].numpy(), float(policy.predict_values(flat))


@given(st.integers(2, 7), st.integers(0, 999))
def test_groups_in_another_order_get_the_same_actions_in_that_order(groups: int, seed: int) -> None:
    (features, budget), policy = observed(groups, seed), network(groups)
    order = np.random.default_rng(seed).permutation(groups)
    actions, value = acted(policy, features, budget)
    again, same = acted(policy, features[order], budget)
    assert again == pytest.approx(actions[order], abs=1e-5)
    assert same == pytest.approx(value, abs=1e-5)


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 99))
def test_its_weights_work_for_any_number_of_groups(groups: int, times: int, seed: int) -> None:
    """Where every group is there several times, the mean of all is the same, and so is what is done with each."""
    few, many = network(groups, seed=seed), network(times * groups, seed=seed + 1)
    many.load_state_dict(few.state_dict())
    features, budget = observed(groups, seed)
    actions, value = acted(few, features, budget)
    repeated, same = acted(many, np.tile(features, (times, 1)), budget)
    assert repeated == pytest.approx(np.tile(actions, times), abs=1e-5)
    assert same == pytest.approx(value, abs=1e-5)


def test_a_bias_tells_groups_apart_that_look_alike() -> None:
    alike = np.tile(observed(1, 0)[0], (3, 1))
    assert np.ptp(acted(network(3), alike, 0.5)[0]) < 1e-6
    biased = network(3, bias=True)
    actions, _ = acted(biased, alike, 0.5)
    assert np.diff(actions) == pytest.approx(np.diff(biased.action_net.bias.detach().numpy()), abs=1e-6)
    with pytest.raises(RuntimeError, match="size mismatch"):
        network(4, bias=True).load_state_dict(biased.state_dict())


def test_first_actions_are_the_prior_plans() -> None:
    used = network(3, bias=True)
    fresh = SharedPolicy(
        used.observation_space, used.action_space, lr_schedule=lambda _: 0.0, net_arch=[8], group_bias=True
    )
    assert max(np.abs(acted(fresh, *observed(3, seed))[0]).max() for seed in range(20)) < 0.1


class Answers(KnownAnswer):
    """KnownAnswer with features for each of its groups: the best action, twice as much, and the place."""

    def __init__(self, best: NDArray[np.float64]) -> None:
        super().__init__(best, steps=1)
        self.features = np.stack([best, 2 * best, np.linspace(0, 1, len(best))], axis=1)
        self.observation_space = gymnasium.spaces.Box(-5, 5, (self.features.size + 1,), np.float32)

    def _observe(self) -> Numbers:
        return np.append(self.features.ravel(), 0.5).astype(np.float32)


def learned(which: str, *, episodes: int, algorithm: str = "PPO", best: Any = (-0.4, 0.4, 0.1)) -> Any:
    return learn(
        small_agent(algorithm, network=which),
        env=Answers(np.array(best)),
        episode_steps=1,
        episodes=episodes,
        seed=0,
        on_metrics=lambda metrics, step: None,
    )


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_what_it_learned_of_some_groups_it_knows_of_others(algorithm: str) -> None:
    policy: TrainedPolicy = learned("shared", episodes=320 if algorithm == "A2C" else 160, algorithm=algorithm).policy
    best = np.array([0.3, -0.3, 0.0, 0.2, -0.2])
    other = Answers(best)
    moved = build_network(
        algorithm, policy.architecture, observation_space=other.observation_space, action_space=other.action_space
    )
    moved.load_state_dict(policy.network.state_dict())
    actions = TrainedPolicy(algorithm, policy.architecture, moved).act(other.reset()[0])
    assert np.corrcoef(actions, best)[0, 1] > 0.9


@pytest.mark.parametrize("which", ["shared", "shared_bias"])
def test_a_loaded_one_acts_as_the_saved_one(which: str, tmp_path: Path) -> None:
    policy = learned(which, episodes=16).policy
    save_policy(policy, tmp_path, training=TRAINING)
    loaded = load_policy(tmp_path)
    assert isinstance(loaded.network, SharedPolicy)
    assert loaded.architecture["options"]["group_bias"] == (which == "shared_bias")
    for observation in np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32):
        assert np.array_equal(loaded.act(observation), policy.act(observation))


@pytest.mark.parametrize(("seen", "done"), [((10,), (2,)), ((1,), (3,)), ((4, 4), (3,)), ((13,), (3, 1))])
def test_spaces_that_are_not_of_whole_plans_are_refused(seen: Any, done: Any) -> None:
    with pytest.raises(ValueError, match=r"agent.env.mode=one_shot"):
        SharedPolicy(
            gymnasium.spaces.Box(-1, 1, seen, np.float32),
            gymnasium.spaces.Box(-1, 1, done, np.float32),
            lr_schedule=lambda _: 0.0,
            net_arch=[8],
        )
