from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.device.timing import Steady, UnstableTimingError, measured, take_turns
from tests.device.simulated import CARE, Machine, noise


def test_everything_takes_turns() -> None:
    order: list[str] = []

    def clock(run: object) -> float:
        order.append(run())  # type: ignore[operator]
        return float(len(order))

    seconds = take_turns([lambda: "a", lambda: "b"], clock=clock, rounds=2, burst=2)
    assert "".join(order) == "aabbaabb"
    assert seconds.tolist() == [[1.0, 5.0], [3.0, 7.0]]  # the fastest of each burst


def test_rounds_may_end_early_but_not_before_the_first() -> None:
    machine = Machine()
    assert take_turns([machine.run(1.0)], clock=machine.clock, rounds=9, go_on=lambda done: False).shape == (1, 1)


@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.6))
def test_a_disturbed_machine_gives_the_undisturbed_minimum(seed: int, share: float) -> None:
    machine = Machine(noise(seed, share=share))
    true = np.array([1e-4, 3e-4, 2e-3])
    least, median, agreed = measured([machine.run(s) for s in true], clock=machine.clock, care=CARE)
    assert (least >= true).all()
    assert (median >= least).all()
    assert np.allclose(least[agreed], true[agreed], rtol=1.0)
    if share < 0.3:
        assert np.allclose(least, true, rtol=0.06)


def test_only_what_is_disputed_is_measured_again() -> None:
    machine = Machine()
    calm = machine.run(1.0)
    growing = count(1)

    def clock(run: object) -> float:
        return machine.clock(calm) if run is calm else float(0.8 ** next(growing))  # type: ignore[arg-type]

    _, _, agreed = measured([calm, machine.run(1.0)], clock=clock, care=CARE)
    assert agreed.tolist() == [True, False]
    assert machine.readings == 2 + CARE.rounds * CARE.burst


def test_a_reference_that_is_slow_is_waited_for() -> None:
    times = iter([2.0] * 30 + [1.0] * 10**6)
    machine = Machine(lambda: next(times))
    steady = Steady(machine.run(1e-3), clock=machine.clock, care=CARE, best=1e-3)
    timings = steady([machine.run(5e-3)])
    assert timings.minimum.tolist() == [5e-3]
    assert timings.reference.tolist() == [1e-3]


def test_a_machine_that_stays_slow_is_an_error_that_says_so() -> None:
    machine = Machine(lambda: 2.0)
    steady = Steady(machine.run(1e-3), clock=machine.clock, care=CARE, best=1e-3)
    with pytest.raises(UnstableTimingError, match=r"100% longer than at its best.*Stop what else runs.*is kept"):
        steady([machine.run(1e-3)])


def test_timings_that_never_repeat_are_an_error() -> None:
    rng = np.random.default_rng(0)
    machine = Machine(lambda: float(10 ** rng.uniform(0, 6)))
    steady = Steady(machine.run(1.0), clock=machine.clock, care=CARE)
    with pytest.raises(UnstableTimingError, match="does not repeat"):
        steady([machine.run(1.0) for _ in range(5)])


def test_a_better_reference_is_the_new_best() -> None:
    speed = iter([2.0] * 200 + [1.0] * 10**6)
    machine = Machine(lambda: next(speed))
    steady = Steady(machine.run(1e-3), clock=machine.clock, care=CARE)
    first = steady([machine.run(1e-3)])
    for _ in range(20):
        last = steady([machine.run(1e-3)])
    assert first.reference[0] == 2e-3
    assert last.reference[0] == steady.best == 1e-3
