"""Noise is as wide as its schedule says, silent in the warm-up, and truncated where it says so."""

from typing import Any

import numpy as np
import pytest
import torch

from autoprune.agent.agent_spec import Replay
from autoprune.agent.learn import learn
from autoprune.agent.noise import AnnealedGaussian, EpisodeNoise, TruncatedNormal
from autoprune.agent.sb3_model import build
from tests.agent.environments import KnownAnswer, small_agent

SHAPE = (4,)


def sigmas(noise: EpisodeNoise, episodes: int) -> list[float]:
    values = []
    for _ in range(episodes):
        noise.reset()
        values.append(noise.sigma)
    return values


def make(schedule: AnnealedGaussian | TruncatedNormal, *, warm_up: int, episodes: int) -> Any:
    return schedule.build(shape=SHAPE, rng=np.random.default_rng(0), warm_up_episodes=warm_up, episodes=episodes)


def test_gaussian_noise_is_annealed_over_its_fraction_of_the_search() -> None:
    noise = make(AnnealedGaussian(sigma=0.5, final_sigma=0.1, fraction=0.5), warm_up=2, episodes=10)
    assert sigmas(noise, 10) == pytest.approx([0, 0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1])


def test_amcs_noise_decays_from_the_end_of_the_warm_up() -> None:
    noise = make(TruncatedNormal(sigma=1.0, decay=0.95), warm_up=100, episodes=300)
    values = sigmas(noise, 300)
    assert values[:100] == [0.0] * 100
    assert values[100:103] == pytest.approx([1.0, 0.95, 0.9025])
    assert values[200] == pytest.approx(0.95**100)


def test_gaussian_noise_has_the_spread_it_says() -> None:
    noise = make(AnnealedGaussian(sigma=0.3, final_sigma=0.3, fraction=1.0), warm_up=0, episodes=10)
    noise.reset()
    draws = np.stack([noise() for _ in range(2000)])
    assert draws.std() == pytest.approx(0.3, rel=0.05)
    assert draws.mean() == pytest.approx(0.0, abs=0.02)


def test_noise_is_silent_in_the_warm_up() -> None:
    for schedule in (AnnealedGaussian(0.5, 0.1, 0.5), TruncatedNormal(1.0, 0.95)):
        noise = make(schedule, warm_up=1, episodes=10)
        noise.reset()
        assert not noise().any()


def test_truncated_noise_around_an_actor_follows_the_truncated_normal() -> None:
    noise = make(TruncatedNormal(sigma=1.0, decay=1.0), warm_up=0, episodes=10)
    mean = torch.tensor([[-1.0, 0.0, 0.5, 1.0]])
    actor = torch.nn.Identity()
    noise.follow(actor)
    noise.reset()
    draws = []
    for _ in range(4000):
        actor(mean)
        draws.append(noise() + mean.numpy()[0])
    samples = np.stack(draws)
    assert np.abs(samples).max() <= 1 + 1e-6
    assert (np.abs(samples) > 0.9999).mean() < 0.005  # no pile on the bounds, where clipping puts a third
    # truncated normals of sigma 1 on [−1, 1]: μ + σ (φ(α) − φ(β)) / (Φ(β) − Φ(α))
    assert samples.mean(0) == pytest.approx([-0.2772, 0.0, 0.1437, 0.2772], abs=0.03)


@pytest.mark.parametrize("steps", [1, 3])
def test_noise_counts_the_episodes_of_a_search(steps: int) -> None:
    env = KnownAnswer(np.zeros(steps), steps=steps)
    noise = AnnealedGaussian(sigma=0.5, final_sigma=0.1, fraction=1.0)
    agent = small_agent("TD3", noise=noise, experience=Replay(episodes=9, warm_up_episodes=2, updates_per_episode=1))
    seen: dict[int, float] = {}

    def on_metrics(metrics: Any, step: int) -> None:
        if "rollout/noise_sigma" in metrics:
            seen[step // steps] = metrics["rollout/noise_sigma"]

    learn(agent, env=env, episode_steps=steps, episodes=6, seed=0, on_metrics=on_metrics)
    assert [seen[episode] for episode in range(1, 7)] == pytest.approx([0, 0, 0.5, 0.4, 0.3, 0.2])


def test_truncated_actions_of_an_agent_stay_around_its_actor() -> None:
    env = KnownAnswer(np.zeros(50), steps=1)
    agent = small_agent(
        "DDPG",
        noise=TruncatedNormal(sigma=0.01, decay=1.0),
        experience=Replay(episodes=9, warm_up_episodes=0, updates_per_episode=1),
    )
    model: Any = build(agent, env=env, episode_steps=1, episodes=9, seed=0)
    model.action_noise.reset()
    model._last_obs = env.reset()[0][None]
    centre = model.predict(model._last_obs)[0]
    action, stored = model._sample_action(0, model.action_noise)
    assert 0 < np.abs(action - centre).max() < 0.05
    assert action == pytest.approx(stored, abs=1e-6)


def test_noise_that_would_grow_is_refused() -> None:
    with pytest.raises(ValueError, match="final_sigma must be in"):
        AnnealedGaussian(0.1, 0.2, 0.5)
