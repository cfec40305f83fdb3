"""Least squares keep to their memory, and compute nothing that nobody reads."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.repair.solver_passes import SUMMED, TOGETHER, WORKING, memory_limit, solver_passes
from tests.repair.wide_kernels import solved, wide_kernels

ROOT = Path(__file__).parents[2]


def most_taken(names: list[str], entries: dict[str, int]) -> int:
    """Bytes at the worst moment of a pass, layer by layer."""
    waiting = (sum(entries[each] for each in names[number:]) for number in range(len(names)))
    return max(SUMMED * summed + WORKING * entries[name] for name, summed in zip(names, waiting, strict=True))


@given(sizes=st.lists(st.integers(1, 1000), max_size=12), limit=st.integers(1, 40_000))
def test_no_pass_takes_more_than_the_limit(sizes: list[int], limit: int) -> None:
    entries = {str(number): size for number, size in enumerate(sizes)}
    passes, left_out = solver_passes(entries, limit=limit)
    together = [name for names in passes for name in names]
    assert sorted([*together, *left_out]) == sorted(entries)
    for names in passes:
        assert most_taken(names, entries) <= (limit if len(names) == 1 else TOGETHER * limit)
    assert [entries[name] for name in [*together, *left_out]] == sorted(sizes), "narrow layers come first"
    assert all((SUMMED + WORKING) * entries[name] > limit for name in left_out)


def test_what_fits_into_half_of_the_memory_is_one_pass() -> None:
    entries = {"wide": 50, "narrow": 10}
    assert solver_passes(entries, limit=2 * (8 * 60 + 8 * 50)) == ([["narrow", "wide"]], [])
    assert solver_passes(entries, limit=2 * (8 * 60 + 8 * 50) - 1) == ([["narrow"], ["wide"]], [])
    assert solver_passes(entries, limit=16 * 50) == ([["narrow"], ["wide"]], [])
    assert solver_passes(entries, limit=16 * 50 - 1) == ([["narrow"]], ["wide"])
    assert solver_passes({}, limit=1) == ([], [])


def test_small_networks_get_less_memory_than_large_ones() -> None:
    assert memory_limit(2 * 10**6) < memory_limit(100 * 10**6) < memory_limit(10**10) == 2**30


def test_kernels_that_are_too_wide_are_left_and_named_at_once() -> None:
    network = wide_kernels(64, kernel=96)  # 6,144 columns of 0.8 MB of weights
    reconstruction = solved(network)
    assert reconstruction.layers == ("8", "12")
    assert reconstruction.too_large == ("4",)
    assert "would take more than 385 MiB of memory" in reconstruction.untouched["4"]


def test_several_passes_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wide_kernels(8, kernel=4)
    whole = solved(network)
    entries = 64**2
    monkeypatch.setattr("autoprune.repair.solver_passes.MOST_BYTES", 16 * entries)
    in_turns = solved(network)
    assert in_turns.layers == whole.layers == ("4", "8", "12")
    kept = (3, 7, 9)
    for name in whole.layers:  # all rows are read, so that nothing is drawn at random
        torch.testing.assert_close(in_turns.weight(name, kept), whole.weight(name, kept), rtol=1e-4, atol=1e-5)


def test_errors_alone_keep_no_factor() -> None:
    network = wide_kernels(8, kernel=4)
    whole, errors = solved(network), solved(network, only_errors=True)
    for name, group in (("4", "0"), ("8", "4"), ("12", "8")):
        assert np.array_equal(errors.error(name, group), whole.error(name, group))
        assert not any(
            tensor.shape[-1] == tensor.shape[-2]
            for tensor in vars(errors._readers[name]).values()
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1
        )
        assert errors._readers[name].solver is None
        with pytest.raises(ValueError, match="only errors were asked for"):
            errors.weight(name, (3, 7, 9))


def test_large_factors_are_read_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wide_kernels(8, kernel=4)
    whole = solved(network)
    monkeypatch.setattr("autoprune.repair.least_squares.LARGE_BYTES", 0)
    stored = solved(network)
    for kept in ((3, 7, 9), (8, 16, 24), (1, 1, 1)):
        for name in whole.layers:
            for key, expected in whole.tensors(name, kept).items():
                assert torch.equal(stored.tensors(name, kept)[key], expected)
    again = pickle.loads(pickle.dumps(stored))  # as workers get it
    widths = (each.all_widths("8") for each in (whole, stored, again))
    for (k, expected), (m, restored), (_, sent) in zip(*widths, strict=True):
        assert k == m
        assert torch.equal(restored, expected)
        assert torch.equal(sent, expected)
    held = [value for value in vars(stored._readers["8"].solver).values() if isinstance(value, torch.Tensor)]
    assert all(value.ndim < 2 for value in held), "nothing large stays in memory"


@pytest.mark.slow
def test_the_process_takes_no_more_than_it_may() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.repair.wide_kernels", "48", "64"]
    peak, *layers = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    entries = (48 * 64) ** 2
    assert layers == ["4", "8", "12"]
    assert int(peak) < (SUMMED + WORKING) * entries + 100e6, "what the other layers and activations take"
    assert int(peak) > SUMMED * entries, "or it is not measured"
