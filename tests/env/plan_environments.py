"""Environments over networks of any kind, whose rewards follow from the plan."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from hypothesis import strategies as st

from autoprune.cost.projection import Projector
from autoprune.env.episodes import SingleEpisode
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import GROUP_FEATURES
from tests.cost.projectors import Stairs, budget_of, on_multiples, projector_for, structure_of


class RecordedObjective:
    """An objective whose rewards follow from the plan; it remembers its calls, and has `limit` evaluations."""

    def __init__(self, limit: int = 10**6) -> None:
        self.calls: list[list[PruningPlan]] = []
        self.limit = limit

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Outcome]:
        self.calls.append(list(plans))
        if sum(map(len, self.calls)) > self.limit:
            raise EvaluationsSpent
        return [outcome_of(plan) for plan in plans]


def outcome_of(plan: PruningPlan) -> Outcome:
    reward = float(np.sin(np.arange(1, 1 + len(plan.kept)) @ np.array(plan.kept)))
    metrics = Metrics(accuracy=0.5, loss=1.0, kl=0.1, agreement=0.9, samples=10)
    return Outcome(
        plan=plan, metrics=metrics, cost={}, score=reward, reward=reward, feasible=True, seconds=0.0, whole=True
    )


def parts(name: str = "residual", *, fraction: float = 0.5, round_to: int = 1, cost: int = 0) -> dict[str, Any]:
    """What an environment over that network is made of; cost: 0 to 2 as in tests.cost, 3 one that is not bilinear."""
    structure = structure_of(name) if round_to == 1 else on_multiples(structure_of(name), round_to)
    projector = (
        projector_for(structure, Stairs(), fraction)
        if cost == 3
        else Projector(structure, budget_of(structure, fraction=fraction, cost=cost))
    )
    features = np.random.default_rng(0).uniform(-1, 5, (len(structure.groups), len(GROUP_FEATURES)))
    return {"structure": structure, "projector": projector, "evaluate": RecordedObjective(), "features": features}


@st.composite
def any_parts(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(["residual", "dense", "grouped", "shared_layer", "digits_net", "resnet20"]))
    round_to = draw(st.sampled_from([1, 3, 8])) if name in ("digits_net", "resnet20") else 1
    return parts(name, fraction=draw(st.floats(0, 1)), round_to=round_to, cost=draw(st.integers(0, 3)))


def alone(env: gymnasium.Env[Any, Any], actions: np.ndarray[Any, Any]) -> tuple[list[Any], list[float], list[Any]]:
    """Observations with the first one, rewards and infos of one episode: actions [steps, …]."""
    observations, rewards, infos = [env.reset(seed=0)[0]], [], []
    for action in actions:
        observation, reward, *_, info = env.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        infos.append(info)
    return observations, rewards, infos


def single(kind: Any, *arguments: Any, **parts: Any) -> SingleEpisode:
    """The kind of vector environment, for one episode."""
    return SingleEpisode(partial(kind, *arguments, **parts))


def assert_lockstep(many: Any, one: gymnasium.Env[Any, Any], actions: np.ndarray[Any, Any]) -> None:
    """Two batches in a row, actions [steps, episodes, …], are to the last bit the episodes alone."""
    single = [alone(one, actions[:, episode]) for episode in range(actions.shape[1])]
    first, _ = many.reset(seed=0)
    for _ in range(2):
        for step, action in enumerate(actions):
            assert np.array_equal(first, [observations[step] for observations, _, _ in single])
            first, rewards, ended, truncated, infos = many.step(action)
            assert rewards.tolist() == [each[step] for _, each, _ in single]
            assert not truncated.any()
            assert set(ended) == {step == len(actions) - 1}
            for key in single[0][2][step]:
                said = [each[step][key] for _, _, each in single]
                assert np.array_equal(np.stack(list(infos[key])), np.stack(said)), key
                assert infos[f"_{key}"].all()
        assert np.array_equal(np.stack(infos["final_obs"]), [observations[-1] for observations, _, _ in single])
        assert infos["final_info"]["plan"].tolist() == [each[-1]["plan"] for _, _, each in single]
        assert infos["_final_obs"].all()
        assert infos["_final_info"].all()
