"""An ensemble of critics is what its members would be one by one, learns, and is saved with its policy."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from autoprune.agent.critics import CAUTION, EnsembleCritic
from autoprune.agent.trained_policy import build_network

OBSERVATIONS = spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = spaces.Box(-1, 1, (3,), np.float32)


def critic_of(algorithm: str, *, many: int = 4) -> EnsembleCritic:
    torch.manual_seed(0)
    architecture = {"hidden": [8, 8], "activation": "tanh", "options": {"n_critics": many}}
    network: Any = build_network(algorithm, architecture, observation_space=OBSERVATIONS, action_space=ACTIONS)
    assert isinstance(network.critic, EnsembleCritic)
    return network.critic


def sampled(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 2, generator=generator), torch.rand(rows, 3, generator=generator)


@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_each_member_is_what_it_would_be_alone(algorithm: str) -> None:
    critic = critic_of(algorithm)
    for parameter in critic.parameters():  # the linear path begins at 0
        torch.nn.init.normal_(parameter)
    observations, actions = sampled(6)
    values = critic(observations, actions)
    assert len(values) == 4
    given = torch.cat([observations, actions], dim=1)
    for member, value in enumerate(values):
        hidden = given
        for weight, bias in zip(critic.weights, critic.biases, strict=True):
            hidden = torch.tanh(hidden @ weight[member] + bias[member])
        alone = hidden @ critic.last[member] + given @ critic.linear[member] + critic.offset[member]
        torch.testing.assert_close(value, alone)


def test_the_actor_climbs_their_mean_less_their_spread() -> None:
    critic = critic_of("TD3")
    observations, actions = sampled(5)
    values = torch.stack(critic(observations, actions))
    expected = values.mean(dim=0) - CAUTION * values.std(dim=0)
    torch.testing.assert_close(critic.q1_forward(observations, actions), expected)


def test_members_agree_where_they_have_seen_and_not_elsewhere() -> None:
    critic = critic_of("TD3")
    observations, actions = sampled(64)
    observations, actions = 0 * observations, actions * 0.2  # in a corner of the box
    truth = actions.sum(dim=1, keepdim=True)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(300):
        values = critic(observations, actions)
        loss = sum(torch.nn.functional.mse_loss(value, truth) for value in values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen, unseen = (torch.stack(critic(observations, scale * actions)) for scale in (1, -5))
    assert float((seen.mean(dim=0) - truth).abs().max()) < 0.05
    assert float(unseen.std(dim=0).mean()) > 5 * float(seen.std(dim=0).mean())
