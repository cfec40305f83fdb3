"""Group by group as corrections to a prior, and paid for at once what is thought to be lost."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.env.layerwise import LayerwiseVectorEnv
from tests.env.plan_environments import alone, any_parts, assert_lockstep, parts, single


@st.composite
def corrections(draw: st.DrawFn) -> dict[str, Any]:
    """Parts with a prior, with what is lost at each level, or with both: no rewards before the last are without it."""
    made, which = draw(any_parts()), draw(st.sampled_from(["prior", "lost", "both"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    groups = made["structure"].groups
    if which != "lost":
        made |= {
            "prior": made["projector"].project(rng.uniform(0.1, 1, len(groups))),
            "max_log_correction": draw(st.floats(0.1, 3)),
        }
    if which != "prior":
        made |= {"lost": [np.sort(rng.exponential(size=group.units + 1))[::-1] for group in groups]}
    return made


@given(st.data())
def test_corrected_and_shaped_episodes_in_lockstep_are_those_alone(data: st.DataObject) -> None:
    made, episodes = data.draw(corrections()), data.draw(st.integers(1, 3))
    size = (len(made["structure"].groups), episodes, 1)
    actions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 0.8, size).astype(np.float32)
    assert_lockstep(LayerwiseVectorEnv(num_envs=episodes, **made), single(LayerwiseVectorEnv, **made), actions)


@given(st.data())
def test_shaping_pays_what_the_table_says_and_leaves_the_return(data: st.DataObject) -> None:
    made = data.draw(corrections())
    lost = made.setdefault("lost", [np.ones(group.units + 1) for group in made["structure"].groups])
    actions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 0.8, (len(lost), 1)).astype(np.float32)
    _, shaped, infos = alone(single(LayerwiseVectorEnv, **made), actions)
    _, plain, same = alone(single(LayerwiseVectorEnv, **{**made, "lost": None}), actions)
    kept = infos[-1]["plan"].kept
    assert kept == same[-1]["plan"].kept
    assert shaped[:-1] == [-float(table[units]) for table, units in zip(lost, kept, strict=True)][:-1]
    assert plain[:-1] == [0.0] * (len(lost) - 1)
    assert sum(shaped) == pytest.approx(sum(plain), abs=1e-9)
    assert plain[-1] == infos[-1]["outcome"].reward


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("cost", [0, 1, 3])
def test_no_corrections_are_the_prior_plan_as_far_as_it_uses_the_budget_up(fraction: float, cost: int) -> None:
    """Whole plans are filled; group by group, none may leave over what no later group, kept whole, could use up."""
    made, rng = parts("digits_net", fraction=fraction, cost=cost), np.random.default_rng(0)
    groups, projector = made["structure"].groups, made["projector"]
    same = 0
    for _ in range(10):
        prior = projector.project(rng.uniform(0.2, 1, len(groups)))
        env = single(LayerwiseVectorEnv, **made, prior=prior, max_log_correction=1.0)
        _, _, infos = alone(env, np.zeros((len(groups), 1), np.float32))
        kept = np.array(infos[-1]["plan"].kept)
        executed = np.concatenate([info["executed_action"] for info in infos])
        assert executed == pytest.approx(np.clip(np.log(kept / prior), -1, 1), abs=1e-5)
        differs = np.flatnonzero(kept != prior)
        same += len(differs) == 0
        if len(differs):
            first = int(differs[0])
            least, _ = projector.interval(kept, first)
            assert kept[first] == least > prior[first]
    assert same >= 2, "it often is the prior altogether"


@given(st.data())
def test_what_was_executed_of_corrections_can_be_executed_again(data: st.DataObject) -> None:
    made = data.draw(corrections())
    actions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 0.4, (len(made["structure"].groups), 1))
    _, _, infos = alone(single(LayerwiseVectorEnv, **made), actions.astype(np.float32))
    executed = np.array([info["executed_action"] for info in infos])
    if np.abs(executed).max() < 1:  # a correction beyond the largest cannot be said
        _, _, again = alone(single(LayerwiseVectorEnv, **made), executed)
        assert again[-1]["plan"] == infos[-1]["plan"]


def test_a_reach_must_be_positive() -> None:
    made = parts("digits_net")
    with pytest.raises(ValueError, match=r"max_log_correction.*-1"):
        LayerwiseVectorEnv(num_envs=2, **made, prior=made["structure"].units, max_log_correction=-1)
