import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.device.grid import ALIGNED, knots, line, stepping, table

SIZES = st.integers(1, 300)


def staircase(inputs: np.ndarray, outputs: np.ndarray, *, aligned: float) -> np.ndarray:
    """What ONNX Runtime does: blocks of 16 channels where inputs are multiples of 4, and another way where not."""
    blocked = -(-outputs // 16) * 16
    by_blocks = (-(-inputs // 16) * 16)[:, None] * blocked[None] * aligned
    directly = inputs[:, None] * (outputs[None] + 3.0)
    return np.where((inputs % 4 == 0)[:, None], by_blocks, directly) + 50.0


@given(least=SIZES, more=SIZES)
def test_knots_are_ascending_and_hold_both_ends(least: int, more: int) -> None:
    found = knots(least, least + more)
    assert (np.diff(found) > 0).all()
    assert found[0] == least
    assert found[-1] == least + more


@given(inputs=SIZES, outputs=SIZES, seed=st.integers(0, 99))
def test_what_was_measured_is_what_stands_at_the_knots(inputs: int, outputs: int, seed: int) -> None:
    rows, columns = knots(1, inputs), knots(1, outputs)
    measured = np.random.default_rng(seed).random((len(rows), len(columns)))
    found = table(rows, columns, measured)
    assert found.shape == (inputs + 1, outputs + 1)
    assert np.allclose(found[np.ix_(rows, columns)], measured)
    assert measured.min() - 1e-9 <= found.min() <= found.max() <= measured.max() + 1e-9


@given(inputs=st.integers(1, 128), outputs=st.integers(1, 128), aligned=st.floats(0.3, 3))
def test_staircases_are_exact_wherever_a_network_can_stand_on_them(inputs: int, outputs: int, aligned: float) -> None:
    rows, columns = knots(1, inputs), knots(1, outputs)
    found = table(rows, columns, staircase(rows, columns, aligned=aligned))
    expected = staircase(np.arange(inputs + 1), np.arange(outputs + 1), aligned=aligned)
    assert np.allclose(found[1:, 1:], expected[1:, 1:])


@pytest.mark.parametrize("most", [300, 512, 777])
def test_far_steps_are_found_by_the_first_one(most: int) -> None:
    """Beyond 128 few widths are measured; that they lie on steps of 16 is seen at the first step beyond 64."""
    rows, columns = knots(1, most), np.array([7], np.int64)
    widths = np.arange(1, most + 1)
    smooth, stepped = widths * 3.0 + 5, -(-widths // 16) * 48.0 + 5
    for truth in (smooth, stepped):
        found = table(rows, columns, truth[rows - 1][:, None])[1:, 7]
        assert np.abs(found / truth - 1).mean() < 0.01


def test_a_step_and_a_slope_are_told_apart() -> None:
    at = np.array([60, 64, 68, 80], np.int64)
    assert stepping(at, np.array([[4.0], [4.0], [5.0], [5.0]])) == 1.0
    assert stepping(at, np.array([[60.0], [64.0], [68.0], [80.0]])) == pytest.approx(0.0)
    assert stepping(at, np.array([[9.0], [9.0], [5.0], [5.0]])) == 0.0


@given(most=SIZES)
def test_one_width_is_interpolated_as_two_are(most: int) -> None:
    at = knots(1, most)
    assert np.allclose(line(at, at * 2.0)[1:], np.arange(1, most + 1) * 2.0, rtol=0.2)
    assert len(line(at, at * 2.0)) == most + 1


def test_both_classes_are_measured_at_both_ends() -> None:
    for most in (6, 17, 64, 130):
        found = knots(1, most)
        assert {width % ALIGNED == 0 for width in found[-2:].tolist()} <= {True, False}
        assert any(width % ALIGNED for width in found)
    assert knots(5, 5).tolist() == [5]
