"""What the schedules decide, against the papers' formulas."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.schedule.decision import Decision, LayerState, Schedule, TrainingState
from autoprune.schedule.schedules import alternating, cubic, iterative_magnitude, one_shot, rigl
from autoprune.schedule.weight_masks import largest, layer_counts

STATE = TrainingState(
    decision=0, density=1.0, target=0.1, progress=0.0, budget=1000.0, counted="macs", cost=1.0, step=0, loss=None,
    layers=(LayerState("a", 900, 1.0, False), LayerState("b", 100, 1.0, True)),
)  # fmt: skip


def decisions(schedule: Schedule, state: TrainingState = STATE) -> list[Decision]:
    """Of a schedule that gets to where each of its decisions says."""
    made: list[Decision] = []
    while state.progress < 1 and len(made) < 100:
        made.append(schedule(state))
        state = replace(state, decision=state.decision + 1, progress=made[-1].until)
    return made


def test_cubic_is_the_papers_formula() -> None:
    made = decisions(cubic(start=0.2, end=0.8, decisions=4))
    assert [d.until for d in made] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    sparsities = [0.0, *(0.9 * (1 - (1 - k / 4) ** 3) for k in (1, 2, 3, 4))]
    assert [1 - d.density_of_all for d in made] == pytest.approx(sparsities)


def test_one_shot_prunes_once() -> None:
    assert [(d.density, d.until) for d in decisions(one_shot(start=0.3))] == [(1.0, 0.3), (0.1, 1.0)]


def test_every_round_removes_the_same_share_and_trains_as_long() -> None:
    made = decisions(iterative_magnitude(rounds=3))
    densities = [d.density_of_all for d in made]
    assert densities == pytest.approx([1, 0.1 ** (1 / 3), 0.1 ** (2 / 3), 0.1])
    ends = [0.0, *(d.until for d in made)]
    steps = [(b - a) * 1000 / density for a, b, density in zip(ends, ends[1:], densities, strict=False)]
    assert max(steps) == pytest.approx(min(steps))
    assert [d.rewind for d in made] == ["none", "initial", "initial", "initial"]
    in_steps = decisions(iterative_magnitude(rounds=3), replace(STATE, counted="steps"))
    assert [d.until for d in in_steps] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_the_output_layer_loses_half_as_much_in_each_round() -> None:
    made = decisions(iterative_magnitude(rounds=8, allocation="uniform", output_rate=0.5))
    last = made[-1].density
    assert isinstance(last, dict)
    share = 1 - last["a"] ** (1 / 8)
    assert last["b"] == pytest.approx((1 - share / 2) ** 8)
    assert 900 * last["a"] + 100 * last["b"] == pytest.approx(100)


def test_rigl_exchanges_less_and_less_along_a_cosine() -> None:
    made = decisions(rigl(decisions=3, regrow=0.4, end=0.8))
    assert [d.until for d in made] == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert made[0].criterion == "random"
    shares = [d.regrow for d in made[1:]]
    assert shares == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 0.8)) for t in (0.2, 0.4, 0.6)])


def test_alternating_ends_sparse() -> None:
    made = decisions(alternating(warmup=0.1, phases=3, end=0.9))
    assert [d.density for d in made] == [1.0, 0.1, 1.0, 0.1, 1.0, 0.1]
    assert made[-2].until == pytest.approx(0.9)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=6), st.floats(0, 1))
def test_layers_keep_exactly_as_many_as_asked_in_proportion(layers: list[tuple[float, int]], share: float) -> None:
    shares, sizes = [each for each, _ in layers], [size for _, size in layers]
    total = round(share * sum(sizes))
    counts = layer_counts(shares, sizes, total)
    assert sum(counts) == total
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    free = [(c / n, s) for c, n, s in zip(counts, sizes, shares, strict=True) if c < n]
    for density, each in free:  # no layer that has room is ahead of another that has, but by one weight
        for other, its in free:
            if each < its:
                assert density <= other + 1 / min(sizes) + 1e-6


def test_of_equal_scores_exactly_as_many_stay() -> None:
    import torch

    assert int(largest(torch.zeros(10), 3).sum()) == 3
    assert int(largest(torch.zeros(10), 0).sum()) == 0


def test_decisions_say_what_is_wrong_with_them() -> None:
    for arguments, sentence in (
        ({"density": 1.5}, r"densities in \[0, 1\], got 1.5"),
        ({"density": {"a": math.nan}}, "got nan"),
        ({"density": 0.5, "regrow": -1.0}, "got -1"),
        ({"density": 0.5, "steps": 0}, "steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Decision(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start below end"):
        cubic(start=0.8, end=0.5)
    with pytest.raises(ValueError, match="warmup below end"):
        alternating(warmup=0.9)
