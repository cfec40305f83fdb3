"""Baselines on pairs of density and bits: the paper's fixed bits, and the additive dynamic program."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune.prior.coded_pairs import DENSITIES, coded_pairs, least_error_plans, pairs_of
from autoprune.problem.problem import Problem
from autoprune.quantize.shared_weights import shared_values
from autoprune.search import fixed_bits, prior_plan
from tests.tasks import prepared, tiny_task

search = partial(fixed_bits.search, bits=5, convolution_bits=8)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prepared(tiny_task("residual", prune=("weights",)), budget="encoded_bytes:0.4", bits=(2, 3, 4, 5, 6, 8))


def test_bits_are_the_papers_and_one_density_fills_the_budget(problem: Problem, tmp_path: Path) -> None:
    limited = problem.limited(1, folder=tmp_path)
    plan = search(limited, rng=np.random.default_rng(0))
    assert plan.kept[1::2] == (8, 8, 8, 5)
    shares = np.array(plan.kept[::2]) / np.array(plan.units[::2])
    assert shares.max() - shares.min() < 0.1
    assert problem.projector.budget.meets(np.array(plan.kept))
    for index in (0, 2, 4, 6):
        more = np.array(plan.kept)
        more[index] += 1
        assert not problem.projector.budget.meets(more)
    assert limited.objective.spent == 1


def test_a_budget_too_small_for_these_bits_takes_bits_from_all(tmp_path: Path) -> None:
    tight = prepared(tiny_task("residual", prune=("weights",), keep=()), budget="encoded_bytes:0.17", bits=(2, 5, 8))
    plan = search(tight.limited(1, folder=tmp_path), rng=np.random.default_rng(0))
    assert tight.projector.budget.meets(np.array(plan.kept))
    assert max(plan.kept[1::2]) < 8


def test_without_bits_there_is_nothing_to_fix(tmp_path: Path) -> None:
    plain = prepared(tiny_task("residual"), budget="macs:0.5")
    with pytest.raises(ValueError, match=r"set structure\.bits"):
        search(plain.limited(1, folder=tmp_path), rng=np.random.default_rng(0))


def test_errors_of_pairs_are_those_of_the_outputs(problem: Problem) -> None:
    """By hand on all calibration samples, the ridge aside, which adds a thousandth of the inputs' mean square."""
    pairs = coded_pairs(problem)
    assert pairs is not None
    (pair,) = [each for each in pairs if each.layer == "fc"]
    layer, task = problem.task.model.get_submodule("fc"), problem.task
    read: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: read.append(args[0].detach()))
    with torch.no_grad():
        task.model(task.data.calibration.inputs)
    handle.remove()
    inputs = (read[0] - read[0].mean(dim=0)).double()
    weight = layer.get_parameter("weight").detach()
    places, measured = problem.candidates.ranking["fc"], np.unique((DENSITIES * 8).round().clip(1))
    for (kept, bits), error in zip(pair.options.tolist(), pair.errors.tolist(), strict=True):
        coded = weight.where(places < kept, 0.0)
        coded = coded if bits == 32 else shared_values(coded, bits)
        if kept not in measured:  # others are interpolated
            continue
        lost = (inputs @ (weight - coded).double().T).square().sum() / (inputs @ weight.double().T).square().sum()
        assert error == pytest.approx(float(lost), rel=0.1, abs=0.01)


def test_the_dynamic_program_on_pairs_finds_what_trying_all_pairs_does(problem: Problem) -> None:
    """Of two matrices: every combination of their options is tried."""
    small = prepared(
        tiny_task("residual", prune=("weights",), keep=("conv1", "fc")), budget="encoded_bytes:0.5", bits=(2, 4)
    )
    pairs = coded_pairs(small)
    assert pairs is not None
    assert len(pairs) == 2
    (plan, *_) = least_error_plans(small, pairs, (1.0,))
    kept = np.array(plan.kept)
    assert small.projector.budget.meets(kept)

    def lost(kept: np.ndarray) -> float:
        return sum(float(pair.errors[(pair.options == kept[list(pair.groups)]).all(axis=1)][0]) for pair in pairs)

    plans = np.array([[*one, *other] for one in pairs[0].options.tolist() for other in pairs[1].options.tolist()])
    inside = plans[small.costs["encoded_bytes"](plans) <= small.projector.budget.limit]
    best = min(lost(each) for each in inside)
    assert lost(kept) <= best + 0.05 * (1 + best)


def test_pairs_are_a_closed_form_start_and_channels_are_none(problem: Problem, tmp_path: Path) -> None:
    assert pairs_of(problem.structure) == {"conv1": (0, 1), "conv2": (2, 3), "conv3": (4, 5), "fc": (6, 7)}
    assert pairs_of(prepared(tiny_task("residual"), budget="macs:0.5", bits=(4,)).structure) is None
    outcomes = {}
    limited = problem.limited(
        8, folder=tmp_path, record=lambda outcome, *_: outcomes.update({outcome.plan: outcome.reward})
    )
    plan = prior_plan.search(limited, rng=np.random.default_rng(0), start="closed_form")
    assert 1 <= len(outcomes) <= 4
    assert outcomes[plan] == max(outcomes.values())
