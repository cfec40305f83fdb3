"""What an agent's environment is: its kind, what it shows, where it begins, what its replay is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.agent.bundle import load_policy, load_training
from autoprune.cost.projection import Rounding
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.env.plan_edits import EditVectorEnv
from autoprune.prior.starts import price, prior_of
from autoprune.problem.problem import Problem
from tests.search.known import KNOWN
from tests.search.learners import learnable
from tests.search.searches import search
from tests.search.toys import filled_on

WAYS: dict[str, tuple[dict[str, Any], type[Any]]] = {
    "layerwise": ({"mode": "layerwise", "prior": "none"}, LayerwiseVectorEnv),
    "corrected": ({"mode": "layerwise", "prior": "uniform", "max_log_correction": 1.0}, LayerwiseVectorEnv),
    "shaped": (
        {"mode": "layerwise", "prior": "sensitivity", "max_log_correction": 1.0, "reward_shaping": "shaped"},
        LayerwiseVectorEnv,
    ),
    "levels": ({"mode": "layerwise", "prior": "none", "levels": 4}, LayerwiseVectorEnv),
    "one_shot": ({"mode": "one_shot", "prior": "none"}, OneShotVectorEnv),
    "blind": (
        {"mode": "one_shot", "prior": "uniform", "max_log_correction": 1.0, "observation": "budget"},
        OneShotVectorEnv,
    ),
    "edit": ({"mode": "edit", "prior": "uniform", "max_log_correction": 1.0, "edits": 99, "length": 3}, EditVectorEnv),
}


def factory_of(problem: Problem, *, projected: bool = True, **options: Any) -> EnvFactory:
    spec = EnvSpec(**options)
    return EnvFactory(problem, spec, problem.objective.evaluate, spec.prior_of(problem), projected=projected)


@pytest.mark.parametrize("way", WAYS)
def test_environments_are_of_the_kind_and_observations_have_names(way: str, tmp_path: Path) -> None:
    options, kind = WAYS[way]
    problem = learnable(KNOWN["chain"], tmp_path, limit=60)
    factory = factory_of(problem, **options)
    env = factory.one()
    assert type(env.episodes) is type(factory.batch(2)) is kind
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    per_group = way in ("one_shot", "edit")  # the last feature is the budget, the others are of every group
    features = len(factory.spec.features) - 1
    assert len(observation) == len(set(env.feature_names)) == (5 * features if per_group else features) + 1
    assert (env.feature_names[-1] == "budget") == (kind is not LayerwiseVectorEnv)
    spent, steps = problem.objective.spent, 0
    over = False
    while not over:
        _, _, over, _, _ = env.step(np.zeros(env.action_space.shape or (), np.float32))
        steps += 1
    assert steps == EnvSpec(**options).steps(problem.structure)
    assert problem.objective.spent - spent == EnvSpec(**options).evaluations


def test_no_action_is_the_prior_plan_everywhere(tmp_path: Path) -> None:
    for way in ("blind", "edit"):
        problem = learnable(KNOWN["mixed"], tmp_path, limit=60)
        found = factory_of(problem, **WAYS[way][0])
        assert found.prior is not None
        info = found.one().step(np.zeros(9, np.float32))[4]
        assert info["plan"] == found.prior.outcome.plan


def test_unprojected_wishes_are_rounded_only(tmp_path: Path) -> None:
    for way in ("layerwise", "one_shot", "edit"):
        problem = learnable(KNOWN["chain"], tmp_path, limit=60)
        found = factory_of(problem, projected=False, **WAYS[way][0])
        assert isinstance(found.projector, Rounding)
        env, info = found.one(), dict[str, Any]()
        env.reset()
        for _ in range(EnvSpec(**WAYS[way][0]).steps(problem.structure)):
            info = env.step(np.ones(env.action_space.shape or (), np.float32))[4]
        assert info["plan"].kept == tuple(problem.structure.units)


def test_a_shaped_step_pays_what_the_curve_says(tmp_path: Path) -> None:
    problem = learnable(KNOWN["chain"], tmp_path, limit=60)
    found = factory_of(problem, **WAYS["shaped"][0])
    assert found.prior is not None
    assert found.prior.curves is not None
    env, curves = found.one(), found.prior.curves
    env.reset()
    paid, info = [], dict[str, Any]()
    for _ in problem.structure.groups:
        _, reward, _, _, info = env.step(np.array([0.4], np.float32))
        paid.append(float(reward))
    lost = [
        float(curves[name].at([kept])[0]) for name, kept in zip(problem.structure.names, info["plan"].kept, strict=True)
    ]
    assert paid[:-1] == pytest.approx([-each for each in lost[:-1]])
    assert sum(paid) == pytest.approx(info["outcome"].reward)


def test_what_is_told_is_what_the_priors_evaluations_said(tmp_path: Path) -> None:
    seen: list[Any] = []
    problem = learnable(KNOWN["chain"], tmp_path, limit=60, seen_by=seen)
    found = factory_of(
        problem, mode="one_shot", prior="sensitivity", max_log_correction=1.5, seed_replay=True, observation="budget"
    )
    known = found.replay_seed()
    assert problem.objective.spent == len(known.rewards) == len(seen) == price(problem, start="sensitivity")
    assert sorted(known.rewards) == sorted(outcome.reward for _, outcome in seen)
    assert known.rewards[-1] == seen[-1][1].reward
    assert np.abs(known.actions[-1]).max() < 1e-6, "no correction is the prior itself"
    assert known.observation.tolist() == pytest.approx([problem.projector.budget.relative])
    assert known.actions[0].min() > 0, "the dense network is more than any correction that the budget allows"


def test_what_is_near_is_filled_and_can_be_executed(tmp_path: Path) -> None:
    for name in ("chain", "mixed"):
        problem = learnable(KNOWN[name], tmp_path, limit=60)
        known = factory_of(
            problem, mode="one_shot", prior="uniform", max_log_correction=1.5, seed_replay=True
        ).replay_seed()
        env = OneShotVectorEnv(
            problem.structure, num_envs=1, projector=problem.projector, evaluate=problem.objective.evaluate,
            features=problem.features, prior=np.array(prior_of(problem, start="uniform").outcome.plan.kept),
            max_log_correction=1.5,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        start = known.executable(rng.uniform(-0.5, 0.5, (20, len(problem.structure.groups))).astype(np.float32))
        plans, moved = env.plans_of(start), env.plans_of(known.neighbours(start, rng))
        assert np.array_equal(known.executable(start)[0], start[0])
        assert all(filled_on(problem.projector, kept) for kept in moved)
        changed = (plans != moved).sum(axis=1)
        assert 0 < changed.mean() <= 4, "a few groups, and the others stay"


def test_a_policy_says_what_it_was_shown(tmp_path: Path) -> None:
    for number, (name, changes) in enumerate(
        [("edit_ppo", {"agent__network": "shared"}), ("edit_ppo", {}), ("recurrent_ppo", {}), ("critic_guided", {})]
    ):
        folder = tmp_path / str(number)
        problem = learnable(KNOWN["chain"], folder, limit=25)
        search(name, prior="uniform", **changes)(problem, rng=np.random.default_rng(0))
        training, policy = load_training(folder / "policy"), load_policy(folder / "policy")
        assert training.features[-1 if name != "recurrent_ppo" else -7] == "budget"
        assert training.actions == "corrections to the uniform plan"
        shape = policy.network.observation_space.shape
        policy.begin()
        first = policy.act(np.zeros(shape, np.float32))  # type: ignore[arg-type]
        policy.begin()
        assert np.array_equal(policy.act(np.zeros(shape, np.float32)), first)  # type: ignore[arg-type]
