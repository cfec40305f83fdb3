"""One policy for many networks: trained on two that take milliseconds, and used on a third."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

from autoprune.agent.agent_spec import AgentSpec
from autoprune.agent.bundle import load_policy, load_training, save_policy
from autoprune.agent.encoders import ENCODERS
from autoprune.cli import conf_dir
from autoprune.cost.budget import parse_budget
from autoprune.cost.budget_range import BudgetRange
from autoprune.transfer.held_out import BEST, RETURNED, held_out, reference_plan
from autoprune.transfer.policy import SENSITIVITY, UNIFORM, Policy
from autoprune.transfer.studied_network import StudiedNetwork
from autoprune.transfer.transfer_training import TransferTraining, train
from tests.tasks import prepared, tiny_task

RANGE = BudgetRange("macs", 0.3, 0.8)


def agent(**changes: Any) -> AgentSpec:
    settings = yaml.safe_load((conf_dir() / "agent" / "transferable.yaml").read_text())["agent"]
    found: AgentSpec = instantiate(settings, _convert_="all")
    return replace(found, hidden=(8, 8), experience=replace(found.experience, updates_per_episode=1), **changes)


@pytest.fixture(scope="module")
def networks() -> list[StudiedNetwork]:
    return [StudiedNetwork.study(prepared(tiny_task(name))) for name in ("residual", "separable", "plain")]


def trained(
    networks: Sequence[StudiedNetwork], *, seed: int = 0, evaluations: int = 110, **changes: Any
) -> TransferTraining:
    return train(networks, budgets=[RANGE], settings=2, agent=agent(**changes), evaluations=evaluations, seed=seed)


@pytest.fixture(scope="module")
def learned(networks: list[StudiedNetwork]) -> TransferTraining:
    return trained(networks[:2])


@pytest.fixture(scope="module")
def policy(learned: TransferTraining, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("policy")
    save_policy(learned.policy, folder, training=learned.training)
    return Policy.load(folder)


def test_it_says_what_it_was_trained_on(learned: TransferTraining, networks: list[StudiedNetwork]) -> None:
    training = learned.training
    assert training.tasks == ("residual", "separable")
    assert training.budgets == {"macs": (0.3, 0.8)}
    paid = sum(network.evaluations for network in networks[:2]) + 2 * 2 * 2
    assert paid < training.evaluations == learned.evaluations <= 110
    assert (training.prior, training.curves, training.max_log_correction) == ("sensitivity", True, 1.5)
    centre, spread = training.normaliser["budget"]
    assert 0.3 <= centre <= 0.8
    assert spread > 0


@pytest.mark.slow
def test_the_same_seed_trains_the_same(networks: list[StudiedNetwork], learned: TransferTraining) -> None:
    again, other = trained(networks[:2]), trained(networks[:2], seed=1)
    weights = [list(each.policy.network.parameters()) for each in (learned, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_encoder_learns(encoder: str, networks: list[StudiedNetwork]) -> None:
    found = trained(networks[:2], encoder=encoder)
    heads = [p for name, p in found.policy.network.critic.named_parameters() if name.endswith("head.weight")]  # type: ignore[union-attr]
    assert heads
    assert all(head.abs().sum() > 0 for head in heads), "they begin at 0"
    assert all(torch.isfinite(weight).all() for weight in found.policy.network.parameters())


@pytest.mark.slow
def test_ranges_of_several_costs_share_the_settings(networks: list[StudiedNetwork]) -> None:
    ranges = [RANGE, BudgetRange("params", 0.5, 0.9)]
    found = train(networks[:1], budgets=ranges, settings=3, agent=agent(), evaluations=60, seed=0)
    assert found.training.budgets == {"macs": (0.3, 0.8), "params": (0.5, 0.9)}


def test_it_learns_of_something_or_says_what_that_takes(networks: list[StudiedNetwork]) -> None:
    paid = sum(network.evaluations for network in networks[:2]) + 2 * 2 * 2
    with pytest.raises(ValueError, match=rf"{paid} evaluations.*2 networks.*of 4"):
        trained(networks[:2], evaluations=paid + 7)
    with pytest.raises(ValueError, match=r"has agent\.agent\.network=transferable, not whole"):
        trained(networks[:2], network="whole", encoder=None, max_log_correction=None)


def test_a_plan_for_another_network_is_the_best_that_is_known(policy: Policy, networks: list[StudiedNetwork]) -> None:
    network = networks[2]
    for text in ("macs:0.35", "macs:0.6"):
        budget = parse_budget(text, network.problem.costs, network.problem.structure)
        planned = policy.plan_for(network, budget)
        assert budget.meets(np.array(planned.plan.kept))
        assert planned.scores[planned.chosen] == max(planned.scores.values())
        assert planned.plan == planned.outcomes[planned.chosen].plan
        assert {SENSITIVITY, UNIFORM} <= planned.scores.keys()
        assert network.evaluations + 2 < planned.evaluations <= network.evaluations + 2 + 8
        smaller = planned.network()
        with torch.inference_mode():
            assert smaller(network.problem.task.example_input).shape == (1, 5)
        assert policy.plan_for(network, budget).plan == planned.plan, "the same seed, the same plan"


def test_it_plans_for_a_task_of_ones_own(policy: Policy) -> None:
    planned = policy.plan(tiny_task("plain"), "macs:0.5", candidates=3)
    assert planned.plan.groups == planned.problem.structure.dense.groups
    assert planned.seconds > 0


def test_what_it_was_not_trained_for_is_refused(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"macs:0.3..0.8.*'macs:0.2'.*0.200 of"):
        policy.plan(tiny_task("plain"), "macs:0.2")
    with pytest.raises(ValueError, match=r"trained under budgets of macs:0.3..0.8, not of params"):
        policy.plan(tiny_task("plain"), "params:0.5")
    with pytest.raises(ValueError, match=r"macs:0.3..0.8.*'macs:0.5,params:0.5'"):
        policy.plan(tiny_task("plain"), "macs:0.5,params:0.5")
    with pytest.raises(ValueError, match="at least 1 plan of the policy's, got 0"):
        policy.plan(tiny_task("plain"), "macs:0.5", candidates=0)
    with pytest.raises(ValueError, match="there is no folder"):
        Policy.load(tmp_path / "nothing")


def test_networks_that_were_held_out_are_compared(
    policy: Policy, networks: list[StudiedNetwork], tmp_path: Path
) -> None:
    network = networks[2]
    budget = parse_budget("macs:0.5", network.problem.costs, network.problem.structure)
    best = reference_plan(network, budget, evaluations=24, seed=0)
    assert budget.meets(np.array(best.kept))
    row = held_out(policy, network, budget, family="plain", best=best, seed=0)
    for kl in row.kl.values():
        assert {RETURNED, BEST, SENSITIVITY, UNIFORM} <= kl.keys()
    assert row.kl["search"][BEST] == min(row.kl["search"].values())
    assert row.kl["held_out"][RETURNED] <= min(row.kl["held_out"][name] for name in (SENSITIVITY, UNIFORM))
    assert row.score(UNIFORM) == 0
    assert row.score(BEST) in (0, 1)
    saved = load_training(policy.folder)
    save_policy(load_policy(policy.folder), tmp_path / "policy", training=replace(saved, held_out=[row.as_row()]))
    assert load_training(tmp_path / "policy").held_out == (row.as_row(),)
