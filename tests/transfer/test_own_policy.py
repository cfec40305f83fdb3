"""A policy that a search leaves plans for the network that it was trained on, and for no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.evaluation.metered import POLICY
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.testing import small_task
from autoprune.transfer.policy import Policy
from tests.search.searches import search, short
from tests.tasks import tiny_task


@pytest.mark.parametrize("name", ["critic_guided", "dqn", "edit_ppo", "ppo", "recurrent_ppo"])
def test_every_agents_policy_plans_for_its_own_network(name: str, tmp_path: Path) -> None:
    own: list[Any] = []
    problem = Problem.prepare(small_task(), ProblemSpec()).limited(
        60, folder=tmp_path, record=lambda outcome, n, phase: own.append(outcome) if phase == POLICY else None
    )
    search(name, **short(name))(problem, rng=np.random.default_rng(0))
    policy = Policy.load(tmp_path)
    planned = policy.plan(small_task())
    best = max(reversed(own), key=lambda outcome: outcome.reward)
    assert planned.outcomes["policy"].plan == best.plan, "what is saved makes the best of its own plans"
    assert planned.scores.keys() == {"policy", "sensitivity", "uniform"}
    assert planned.chosen == max(planned.scores, key=lambda each: planned.scores[each])
    other = policy.plan(small_task(), "macs:0.7")
    assert other.problem.projector.budget.meets(np.array(other.outcomes["policy"].plan.kept))
    assert other.problem.projector.budget.relative == pytest.approx(0.7, abs=0.01)
    with pytest.raises(ValueError, match=r"was trained on small, whose groups are .* and fits no other network"):
        policy.plan(tiny_task(), "macs:0.5")
