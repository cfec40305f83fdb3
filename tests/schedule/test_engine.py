"""The engine: masks stay exact, budgets and densities are met, a run goes on bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.schedule import engine
from autoprune.schedule.decision import Decision, PruningGoal, Schedule, TrainingState
from autoprune.schedule.engine import CHECKPOINT, PrunedTraining, PruningRun, train_pruned
from autoprune.schedule.masked_training import Snapshot, TrainingRecipe, initialised
from autoprune.schedule.schedules import (
    alternating,
    cubic,
    iterative_magnitude,
    one_shot,
    rigl,
    sparse_evolutionary,
    static_mask,
)
from tests.schedule.training_tasks import digits_task

SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "one_shot": one_shot,
    "cubic": lambda: cubic(decisions=5),
    "cubic_uniform": lambda: cubic(decisions=5, allocation="uniform"),
    "initial": lambda: iterative_magnitude(rounds=2),
    "output_rate": lambda: iterative_magnitude(rounds=6, allocation="uniform", output_rate=0.5),
    "step": lambda: iterative_magnitude(rounds=2, rewind="step", rewind_step=3),
    "learning_rate": lambda: iterative_magnitude(rounds=2, rewind="learning_rate"),
    "rigl": lambda: rigl(decisions=4),
    "set": lambda: sparse_evolutionary(decisions=4),
    "static": static_mask,
    "acdc": lambda: alternating(phases=2),
}
RECIPE = TrainingRecipe(batch_size=64)


def pruned(
    schedule: Schedule,
    *,
    density: float | None = 0.1,
    steps: float = 30,
    kind: str = "conv",
    folder: Path | None = None,
) -> PrunedTraining:
    goal = PruningGoal(density=density, steps=steps, start="initial")
    return train_pruned(digits_task(kind), schedule, goal, recipe=RECIPE, folder=folder)


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "sgd") for name in SCHEDULES), ("rigl", "adamw")])
def test_every_schedule_meets_its_density_to_one_weight_and_its_budget(name: str, optimizer: str) -> None:
    task = digits_task("conv" if name in ("cubic_uniform", "rigl") else "dense")
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    recipe = replace(RECIPE, optimizer=optimizer, learning_rate=0.01)
    goal = PruningGoal(density=0.1, steps=30, start="initial")
    result = train_pruned(task, SCHEDULES[name](), goal, recipe=recipe)
    total = sum(parameter.numel() for key, parameter in task.model.named_parameters() if parameter.ndim > 1)
    assert result.weights == round(0.1 * total) == sum(int(mask.sum()) for mask in result.masks.values())
    for key, mask in result.masks.items():
        assert (result.network.get_parameter(key)[~mask] == 0).all(), "masked weights are 0 exactly"
    if name != "static":
        assert result.removed_last <= 3, "the schedule itself reaches the density"
    dearest = max(1.0, *(record["density"] for record in result.history))
    assert 30 - dearest - 1e-6 <= result.spent <= 30 + 1e-6
    assert result.steps == sum(record["steps"] for record in result.history)
    assert all(torch.equal(value, task.model.state_dict()[key]) for key, value in before.items())
    assert not result.network.training


def test_a_sparse_step_spends_what_its_masks_leave_of_the_macs() -> None:
    result = pruned(static_mask(), density=0.25, steps=20, kind="dense")
    weights = {key: int(mask.sum()) for key, mask in result.masks.items()}
    each = sum(weights.values()) / (64 * 32 + 32 * 10)  # every weight of a linear layer is used once for a sample
    assert result.steps == int(20 / each + 1e-6)
    assert result.macs == pytest.approx(result.steps * each)


def test_gradients_for_growth_are_charged_as_a_dense_step() -> None:
    result = pruned(rigl(decisions=4), density=0.25, steps=20, kind="dense")
    exchanges = sum(record["regrow"] > 0 for record in result.history)
    each = result.weights / (64 * 32 + 32 * 10)
    assert exchanges > 0
    assert result.spent == pytest.approx(result.steps * each + exchanges)


def test_rewinding_gives_the_weights_of_then_under_the_mask_of_now() -> None:
    task = digits_task("dense")
    run = PruningRun(task, PruningGoal(density=0.3, steps=40, start="initial"), RECIPE)
    start = {key: value.clone() for key, value in run.model.state_dict().items()}
    run.decide(Decision(density=1.0, steps=10, save_steps=(4,)))
    assert run.train()
    run.decide(Decision(density=0.5, steps=5, rewind="initial"))
    for key, value in run.model.state_dict().items():
        mask = run.training.masks.get(key, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, start[key] * mask)
    assert not run.training.loop.optimizer.state
    assert run.train()
    run.decide(Decision(density=0.4, steps=1, rewind="step", rewind_step=4))
    key = next(iter(run.training.masks))
    now = run.model.state_dict()[key]
    assert torch.equal(now, run.training.points[4][key] * run.training.masks[key])
    trained = run.model.state_dict()[key].clone()
    run.train()
    run.decide(Decision(density=0.4, steps=1, rewind="learning_rate"))
    assert run.training.clock.position == 0.0
    assert not torch.equal(run.model.state_dict()[key], trained), "weights are not rewound with the learning rate"


def test_the_rewound_ticket_is_what_training_it_alone_gives() -> None:
    """Oracle: a plain loop over the ticket's own batches."""
    task = digits_task("dense")
    run = PruningRun(task, PruningGoal(density=0.3, steps=40, counted="steps", start="initial"), RECIPE)
    run.decide(Decision(density=1.0, steps=6, cycle=True))
    run.train()
    run.decide(Decision(density=0.3, steps=5, rewind="initial"))
    masks = run.training.masks
    model = initialised(task.model, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4, nesterov=True)
    other = run.training.fork()
    for step in range(5):
        inputs, targets = next(other.loop.batches)
        with torch.no_grad():
            for key, mask in masks.items():
                model.get_parameter(key).mul_(mask)
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = RECIPE.rate(step / 5)
        optimizer.step()
    run.train()
    for key, mask in masks.items():
        assert torch.allclose(run.model.get_parameter(key), model.get_parameter(key) * mask, atol=1e-6)


@pytest.mark.parametrize("name", ["rigl", "step", "acdc"])
def test_a_run_goes_on_bit_for_bit_from_every_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: list[bytes]
) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY", 3)
    whole = pruned(SCHEDULES[name](), steps=12, folder=tmp_path / "whole")
    states = list(checkpoints)
    for number, state in enumerate(states[:: max(1, len(states) // 5)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / CHECKPOINT).write_bytes(state)
        again = pruned(SCHEDULES[name](), steps=12, folder=folder)
        assert again.history == whole.history
        for key, value in whole.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[key])
        assert all(torch.equal(mask, again.masks[key]) for key, mask in whole.masks.items())


def test_a_fork_goes_on_by_itself_as_the_run_would() -> None:
    run = PruningRun(digits_task(), PruningGoal(density=0.2, steps=20, start="initial"), RECIPE)
    run.decide(Decision(density=0.5, steps=5))
    run.train()
    other = run.training.fork()
    for training in (run.training, other):
        with training.training_mode():
            for _ in range(3):
                training.advance(cost=1.0, macs=1.0, rate=0.01)
    for key, value in run.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[key])
    assert other.clock == run.training.clock
    with other.training_mode():
        other.advance(cost=1.0, macs=1.0, rate=0.01)
    assert other.clock != run.training.clock


def test_n_of_m_stay_of_every_m_inputs_of_a_convolution() -> None:
    goal = PruningGoal(steps=20, granularity="2:4", start="initial")
    result = train_pruned(digits_task(), cubic(decisions=4), goal, recipe=RECIPE)
    mask = result.masks["3.weight"]  # [8, 8, 3, 3]
    groups = mask.movedim(1, -1).reshape(8, 3, 3, 2, 4)
    assert (groups.sum(dim=-1) == 2).all()
    assert "0.weight" not in result.masks, "one input is no multiple of 4: the first layer stays dense"


def test_channels_are_cut_away_at_the_end_and_the_masked_network_is_the_same() -> None:
    task = digits_task()
    run = PruningRun(task, PruningGoal(density=0.4, steps=20, granularity="channel"), RECIPE)
    run.decide(Decision(density=0.6, steps=5))
    run.train()
    run.decide(Decision(density=0.4))
    run.train()
    result = run.finish()
    total = 8 * 9 + 8 * 8 * 9 + 1280
    weights = sum(p.numel() for p in result.network.parameters() if p.ndim > 1)
    assert weights == result.weights <= 0.4 * total
    assert weights > 0.3 * total, "one more unit would not fit"
    inputs = task.data.test.inputs[:20]
    assert torch.allclose(result.network(inputs), run.model(inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        (PruningGoal(density=0.0001, steps=10), "ask for a density of at least"),
        (PruningGoal(density=0.3, steps=10, keep=frozenset({"8"})), "in layers that stay dense"),
        (PruningGoal(density=0.3, steps=10, granularity="2:4"), "exactly"),
        (PruningGoal(density=0.3, steps=10, granularity="4:2"), "N:M with 0 < N < M"),
        (PruningGoal(steps=10), "density is missing"),
    ],
)
def test_what_cannot_be_reached_is_refused_before_training(goal: PruningGoal, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        train_pruned(digits_task(), one_shot(), goal)


def test_too_little_training_for_the_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves each of the 11 rounds"):
        pruned(iterative_magnitude(rounds=10), steps=3)
    with pytest.raises(ValueError, match="lower rounds or rewind_step"):
        pruned(iterative_magnitude(rounds=2, rewind="step", rewind_step=500), steps=30)
    with pytest.raises(ValueError, match="more than the 193 that the density leaves"):
        pruned(iterative_magnitude(rounds=2, allocation="uniform", output_rate=0.5))
    with pytest.raises(ValueError, match="needs allocation=uniform"):
        iterative_magnitude(output_rate=0.5)


def test_a_point_that_was_not_saved_is_named() -> None:
    def schedule(state: TrainingState) -> Decision:
        return Decision(density=0.5, steps=5, rewind="step" if state.decision else "none", rewind_step=3)

    with pytest.raises(ValueError, match=r"3 needs.*\[0\]"):
        pruned(schedule)


def test_what_was_trained_before_nan_is_kept(tmp_path: Path) -> None:
    task = digits_task("dense")
    goal = PruningGoal(density=0.5, steps=60, start="initial")
    recipe = replace(RECIPE, learning_rate=1e12, warmup=0.5)
    with pytest.raises(FloatingPointError, match=r"training loss is .* lower the learning rate; what was trained"):
        train_pruned(task, cubic(decisions=30), goal, recipe=recipe, folder=tmp_path)
    snapshot = Snapshot.load(tmp_path / CHECKPOINT)
    assert snapshot.numbers["clock"]["step"] >= 0


def test_a_schedule_that_never_prunes_still_meets_the_density() -> None:
    result = pruned(lambda state: Decision(density=1.0))
    assert result.removed_last == 1928 - result.weights
    assert result.weights == round(0.1 * 1928)


def test_a_schedule_cannot_go_below_the_target() -> None:
    result = pruned(lambda state: Decision(density=0.0))
    assert result.weights == round(0.1 * 1928)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="no training that can be resumed"):
        pruned(one_shot(), folder=tmp_path)


def test_a_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    pruned(one_shot(), steps=4, folder=tmp_path)
    assert pruned(one_shot(), steps=4, folder=tmp_path).weights == 193
    with pytest.raises(ValueError, match="of a run with another goal; go on with those"):
        pruned(one_shot(), steps=5, folder=tmp_path)


def test_networks_with_parameters_of_their_own_are_not_initialised_in_part() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match="reset_parameters"):
        initialised(nn.Sequential(Scaled()), seed=0)
