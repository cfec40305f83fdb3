import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoprune.evaluation.outcome import Outcome
from autoprune.evaluation.race import Race, is_precise
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from tests.evaluation.tables import BLOCKS, SAMPLES, Kept, Table, by_size, objective_by, timeless
from tests.tasks import prepared, tiny_task

RACE = Race(first=0.1, growth=3, errors=3)
EVERYBODY = 1 + 1e-6  # a growth at which no plan has to leave for its rank alone

races = st.builds(
    Race, first=st.floats(1e-3, 1), growth=st.floats(1.01, 5), errors=st.floats(0.1, 5) | st.just(math.inf)
)


@st.composite
def fields(draw: st.DrawFn) -> tuple[dict[int, NDArray[np.float64]], NDArray[np.int32]]:
    """Rewards of some plans on the same blocks, some of them equal, and the blocks' samples."""
    plans, blocks = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rewards = rng.normal(size=(plans, 1)) * draw(st.sampled_from([0, 1, 10])) + rng.normal(size=(plans, blocks)).round(
        1
    )
    return dict(enumerate(rewards)), rng.integers(1, 11, blocks).astype(np.int32)


@pytest.fixture(scope="module")
def ready() -> Problem:
    return prepared(tiny_task())


def plans_of(ready: Problem, count: int) -> list[PruningPlan]:
    """From small to large, which is from bad to good."""
    kept, ladder = ready.structure.floor, [ready.structure.floor]
    while (kept < ready.structure.units).any():
        kept = kept.copy()
        kept[(ready.structure.units - kept).argmax()] += 1
        ladder.append(kept)
    return [ready.structure.plan(ladder[i]) for i in np.linspace(0, len(ladder) - 1, count).round().astype(int)]


# the rules


@given(race=races, batches=st.integers(1, 200))
def test_stages_grow_and_end_with_all(race: Race, batches: int) -> None:
    stages = list(race.stages(batches))
    assert stages == sorted(set(stages))
    assert stages[0] == min(batches, max(1, round(race.first * batches)))
    assert stages[-1] == batches


def test_stages_of_known_races() -> None:
    assert list(RACE.stages(100)) == [10, 30, 90, 100]
    assert list(RACE.stages(2)) == [1, 2]
    assert list(Race(first=1, growth=2, errors=1).stages(7)) == [7]


@given(race=races, field=fields())
def test_the_one_with_the_best_mean_stays_and_few_with_it(race: Race, field: Any) -> None:
    rewards, samples = field
    left = race.survivors(rewards, samples)
    means = {key: np.average(values, weights=samples) for key, values in rewards.items()}
    assert max(means, key=lambda key: means[key]) in left  # the first of equals
    assert len(left) <= math.ceil(len(rewards) / race.growth)
    assert left == [key for key in rewards if key in left]
    gone = set(rewards) - set(left)
    rivals = rewards | {-1: rewards[left[0]]}
    assert gone <= set(rivals) - set(race.survivors(rewards, samples, rivals[-1]))  # a rival saves nobody


@given(field=fields(), errors=st.floats(0.1, 5), ahead=st.floats(1e-3, 1e3))
def test_all_leave_who_are_clearly_behind_the_rival(field: Any, errors: float, ahead: float) -> None:
    rewards, samples = field
    best = np.max(list(rewards.values()), axis=0)
    race = Race(first=0.1, growth=2, errors=errors)
    left = race.survivors(rewards, samples, best + 1e6 * ahead)
    assert left == ([] if len(samples) > 1 else race.survivors(rewards, samples))  # one block shows no error
    assert race.survivors(rewards, samples, np.min(list(rewards.values()), axis=0) - ahead) == race.survivors(
        rewards, samples
    )


@given(rewards=st.lists(st.floats(-10, 10), min_size=2, max_size=8), plans=st.integers(2, 9))
def test_equal_plans_are_not_behind_one_another(rewards: list[float], plans: int) -> None:
    race = Race(first=0.1, growth=EVERYBODY, errors=1e-9)
    samples = np.full(len(rewards), 10, np.int32)
    assert race.survivors({i: np.array(rewards) for i in range(plans)}, samples) == list(range(plans))
    assert race.survivors({0: np.array(rewards)}, samples, np.array(rewards)) == [0]


def test_behind_is_measured_in_standard_errors_of_the_paired_difference() -> None:
    """Differences 1, 2, 3: mean 2, standard error √(1/3), so 2 / √(1/3) = 3.46 of them behind."""
    leader, hard = np.array([1.0, 2.0, 3.0]), np.array([100.0, -100.0, 0.0])  # what all find hard does not count
    weights = np.ones(3)
    assert Race(first=0.1, growth=2, errors=3.4).is_behind(hard, leader + hard, weights)
    assert not Race(first=0.1, growth=2, errors=3.5).is_behind(hard, leader + hard, weights)
    assert not Race(first=0.1, growth=2, errors=0.1).is_behind(leader, np.zeros(3), weights)


def test_blocks_count_by_their_samples() -> None:
    race = Race(first=0.1, growth=2, errors=100)
    rewards = {"a": np.array([0.0, 1.0]), "b": np.array([0.5, 0.0])}
    assert race.survivors(rewards, np.array([10, 10], np.int32)) == ["a"]
    assert race.survivors(rewards, np.array([10, 1], np.int32)) == ["b"]


# an objective that races


def run(ready: Problem, count: int, *, race: Race | None = RACE, **changes: Any) -> tuple[list[Outcome], Table]:
    table = Table(by_size)
    objective = objective_by(table, ready, batches=20, race=race)
    return objective.evaluate(plans_of(ready, count), **changes), table


@pytest.mark.parametrize("count", [2, 5, 12])
def test_the_winner_is_who_wins_without_a_race(ready: Problem, count: int) -> None:
    raced, table = run(ready, count)
    everything, whole = run(ready, count, race=None)
    best = max(everything, key=lambda outcome: outcome.reward)
    assert timeless([max(raced, key=lambda outcome: outcome.reward)]) == timeless([best])
    assert whole.batches_judged == 20 * count
    assert table.batches_judged < whole.batches_judged
    for one, other in zip(raced, everything, strict=True):
        assert (one.plan, one.cost, one.feasible) == (other.plan, other.cost, other.feasible)
        assert one.whole == (one.metrics.samples == 20 * BLOCKS * SAMPLES)
        assert one.whole or one.reward < best.reward
        assert one.reward == pytest.approx(other.reward, abs=0.1)  # noise of 0.1 per block, in pairs
    assert sum(outcome.whole for outcome in raced) == 1


def test_who_left_early_is_estimated_from_what_it_was_behind_the_winner(ready: Problem) -> None:
    outcomes, table = run(ready, 6)
    winner = max(outcomes, key=lambda outcome: outcome.reward)
    for outcome in outcomes:
        seen = outcome.metrics.samples // (BLOCKS * SAMPLES)
        means = [
            np.mean([table.judged(plan.kept, batch).values[2] for batch in range(seen)], dtype=float)
            for plan in (outcome.plan, winner.plan)
        ]
        assert outcome.reward == pytest.approx(winner.reward - (means[0] - means[1]), abs=1e-6)
        assert outcome.metrics.kl == pytest.approx(means[0], abs=1e-6)


def test_a_race_against_a_better_plan_is_lost_by_all(ready: Problem) -> None:
    table, dense = Table(by_size), ready.structure.dense
    objective = objective_by(table, ready, batches=20, race=RACE)
    known = objective.evaluate([dense])[0]
    asked = len(table.asked)
    outcomes = objective.evaluate(plans_of(ready, 6)[:-1], against=dense)
    assert {outcome.metrics.samples for outcome in outcomes} == {2 * BLOCKS * SAMPLES}  # a tenth of 20 batches
    assert not any(outcome.whole for outcome in outcomes)
    assert all(outcome.reward < known.reward for outcome in outcomes)
    assert [(job.start, job.stop) for job in table.asked[asked:]] == [(0, 2)] * 5


def test_a_plan_alone_races_with_the_rival_only(ready: Problem) -> None:
    small, *_, large = plans_of(ready, 6)
    objective = objective_by(Table(by_size), ready, batches=20, race=RACE)
    assert objective.evaluate([small])[0].whole
    assert objective.evaluate([small], against=small)[0].whole
    assert not objective.evaluate([small], against=large)[0].whole
    assert objective.evaluate([large], against=small)[0].whole


def test_no_race_where_the_whole_is_asked_for(ready: Problem) -> None:
    outcomes, table = run(ready, 6, whole=True, against=plans_of(ready, 6)[-1])
    assert all(outcome.whole for outcome in outcomes)
    assert table.batches_judged == 6 * 20
    assert timeless(outcomes) == timeless(run(ready, 6, race=None)[0])


def test_equal_plans_take_one_place_in_the_race(ready: Problem) -> None:
    plans, table = plans_of(ready, 5), Table(by_size)
    objective = objective_by(table, ready, batches=20, race=RACE)
    once = timeless(objective_by(Table(by_size), ready, batches=20, race=RACE).evaluate(plans))
    assert timeless(objective.evaluate([*plans, *plans[::-1]])) == once + once[::-1]
    assert len({(job.kept, job.start) for job in table.asked}) == len(table.asked)


def test_a_plan_that_fails_late_was_in_the_race_until_then(ready: Problem) -> None:
    *others, best = plans_of(ready, 4)

    def value(kept: Kept, batch: int, block: int) -> float:
        if kept == best.kept and batch >= 10:
            raise FloatingPointError("1 of its outputs is NaN or infinite")
        return by_size(kept, batch, block)

    race = Race(first=0.25, growth=EVERYBODY + 1, errors=100)
    outcomes = objective_by(Table(value), ready, batches=20, race=race).evaluate([*others, best])
    assert outcomes[-1].failed is not None
    assert outcomes[-1].reward == min(outcome.reward for outcome in outcomes)
    assert [outcome.failed for outcome in outcomes[:-1]] == [None] * 3


@given(race=races, batches=st.integers(1, 200), plans=st.integers(1, 50))
def test_a_race_takes_at_least_its_first_part_and_at_most_all(race: Race, batches: int, plans: int) -> None:
    share = race.least_share(batches, plans=plans)
    assert next(race.stages(batches)) / batches - 1e-9 <= share <= 1


def test_the_least_share_by_hand() -> None:
    assert Race(first=0.25, growth=2, errors=3).least_share(4, plans=4) == (4 * 1 + 2 * 1 + 1 * 2) / 16


def test_a_loss_is_precise_by_its_own_size() -> None:
    weights = np.ones(9)
    near = np.array([1.0, 1.2] * 4 + [1.1])
    assert is_precise(near, weights)
    assert not is_precise(near - 1.0, weights)  # as much spread around a loss of 0.1
    assert not is_precise(np.zeros(9), weights)
    assert not is_precise(-near, weights)
    assert not is_precise(near[:3], weights[:3]), "three blocks say little of their own error"
