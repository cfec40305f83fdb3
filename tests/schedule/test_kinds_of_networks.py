"""Masks of every kind of layer: what counts, what stays exact, and training without the channels that are gone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.schedule import engine
from autoprune.schedule.decision import Decision, PruningGoal, Schedule
from autoprune.schedule.engine import PruningRun, train_pruned
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedules import alternating, cubic, iterative_magnitude, one_shot, rigl
from autoprune.schedule.signals import SignalMeter
from autoprune.schedule.trained_network import PrunedTraining
from autoprune.task.task import Task
from tests.schedule.training_tasks import NOISE, digits_task, noise_task

RECIPES = {
    "sgd": TrainingRecipe(batch_size=16, learning_rate=0.02, weight_decay=0.1),
    "clipped": TrainingRecipe(batch_size=16, learning_rate=0.02, clip_norm=0.1, momentum=0.0),
    "adamw": TrainingRecipe(batch_size=16, learning_rate=0.001, optimizer="adamw", weight_decay=0.1),
}


PAIRS = [*((kind, "sgd") for kind in NOISE), ("attending", "adamw"), ("normed", "clipped")]


@pytest.mark.parametrize(("kind", "recipe"), PAIRS)
def test_masks_of_every_kind_of_layer_stay_exact(kind: str, recipe: str) -> None:
    goal = PruningGoal(density=0.2, steps=6, start="initial")
    for schedule in (cubic(decisions=3), rigl(decisions=2)):
        result = train_pruned(noise_task(kind), schedule, goal, recipe=RECIPES[recipe])
        total = sum(mask.numel() for mask in result.masks.values())
        assert result.weights == round(0.2 * total)
        for name, mask in result.masks.items():
            assert (result.network.get_parameter(name)[~mask] == 0).all()


def test_recurrent_and_attention_weights_count_and_embeddings_are_named() -> None:
    run = PruningRun(noise_task("recurrent"), PruningGoal(density=0.5, steps=1))
    names = {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l0_reverse", "lstm.weight_hh_l0_reverse", "head"}
    assert {layer.name for layer in run.masking.layers} == names
    assert {layer.positions for layer in run.masking.layers if layer.name != "head"} == {7}, "one for each time step"
    assert run.finish().uncounted == {"embedding.weight": 240}
    run = PruningRun(noise_task("attending"), PruningGoal(density=0.5, steps=1))
    parts = {"encoder.self_attn.in_proj_weight": 432, "encoder.self_attn.out_proj": 144}
    assert parts.items() <= {layer.name: layer.weights for layer in run.masking.layers}.items()
    assert run.finish().uncounted == {}


def test_a_head_that_shares_the_embedding_goes_by_the_parameters_own_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.inner(self.embedding(tokens)).mean(dim=1))

    task = noise_task("recurrent")
    task = Task(Tied(), task.example_input, task.data, name="tied")
    result = train_pruned(task, cubic(decisions=2), PruningGoal(density=0.5, steps=4, start="initial"))
    assert result.masks.keys() == {"embedding.weight", "inner.weight"}
    assert result.uncounted == {}


def test_n_of_m_runs_along_the_inputs_of_a_transposed_convolution() -> None:
    result = train_pruned(noise_task("transposed"), one_shot(), PruningGoal(steps=4, granularity="2:4"))
    mask = result.masks["2.weight"]  # [8 inputs, 6 outputs, 2, 2]
    assert (mask.view(2, 4, 6, 2, 2).sum(dim=1) == 2).all()
    assert result.masks.keys() == {"2.weight"}, "1 and 6 inputs are no multiples of 4"


def trained(task: Task, schedule: Schedule, recipe: TrainingRecipe, *, cuts_channels: bool) -> PrunedTraining:
    goal = PruningGoal(density=0.5, steps=10, granularity="channel", start="initial")
    run = PruningRun(task, goal, recipe, cuts_channels=cuts_channels)
    while not run.over:
        run.decide(schedule(run.state()))
        while not run.train(3):
            pass
    return run.finish()


@pytest.mark.parametrize(("kind", "recipe"), [*((kind, "adamw") for kind in NOISE), *PAIRS[::3], ("normed", "clipped")])
def test_training_without_the_channels_that_are_gone_is_training_with_them_at_zero(
    kind: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SAVED_STEPS", 0.0)
    schedule = iterative_magnitude(rounds=2, rewind="step", rewind_step=2)
    cut, masked = (trained(noise_task(kind), schedule, RECIPES[recipe], cuts_channels=each) for each in (True, False))
    assert cut.steps == masked.steps
    assert cut.spent == pytest.approx(masked.spent)
    assert all(torch.equal(mask, masked.masks[name]) for name, mask in cut.masks.items())
    # AdamW divides the rounding errors of a gradient that is 0 in theory, a key's bias, by themselves
    close = 1e-3 if recipe == "adamw" else 1e-5
    for name, value in masked.network.state_dict().items():
        assert torch.allclose(cut.network.state_dict()[name], value, atol=close)


def test_channels_are_cut_away_where_that_saves_time_and_what_trains_is_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    real = engine.PruningRun._steps

    def noted(self: PruningRun, training: engine.Training, *args: object, **kwargs: object) -> bool:
        sizes.append(sum(parameter.numel() for parameter in training.model.parameters()))
        return real(self, training, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.PruningRun, "_steps", noted)
    schedule = one_shot(start=0.2)
    goal = PruningGoal(density=0.3, steps=50, granularity="channel", start="initial")
    result = train_pruned(noise_task("normed"), schedule, goal, recipe=RECIPES["sgd"])
    dense, small = sizes[0], sizes[-1]
    assert small == sum(parameter.numel() for parameter in result.network.parameters()) < dense
    sizes.clear()
    train_pruned(noise_task("normed"), schedule, replace(goal, steps=5), recipe=RECIPES["sgd"])
    assert set(sizes) == {dense}, "cutting costs more than a few steps"


def test_channels_do_not_come_back() -> None:
    goal = PruningGoal(density=0.5, steps=10, granularity="channel", start="initial")
    with pytest.raises(ValueError, match="granularity=weight"):
        train_pruned(noise_task("normed"), alternating(phases=2), goal, recipe=RECIPES["sgd"])


def test_frozen_weights_are_masked_and_not_trained() -> None:
    task = digits_task("dense")
    task.model.get_submodule("1").requires_grad_(False)
    before = task.model.get_parameter("1.weight").clone()
    result = train_pruned(task, cubic(decisions=2), PruningGoal(density=0.5, steps=4))
    kept = result.masks["1.weight"]
    assert torch.equal(result.network.get_parameter("1.weight")[kept], before[kept])
    assert not torch.equal(result.network.get_parameter("3.bias"), task.model.get_parameter("3.bias"))


def test_what_leaves_nothing_to_remove_is_refused() -> None:
    goal = PruningGoal(steps=4, granularity="3:7")
    with pytest.raises(ValueError, match=r"\(1.*64 inputs.*of 7; 3: its 32"):
        train_pruned(digits_task("dense"), one_shot(), goal)
    with pytest.raises(ValueError, match=r"\['head'\].*\['0', '1'"):
        train_pruned(digits_task("dense"), one_shot(), PruningGoal(density=0.5, steps=4, keep=frozenset({"head"})))


def test_what_is_no_schedule_is_a_sentence() -> None:
    task, goal = digits_task("dense"), PruningGoal(density=0.5, steps=4)
    for schedule, sentence in (
        (cubic, r"call it: cubic\(\)"),
        ("cubic", "got 'cubic'"),
        (lambda state: 0.5, "returns a Decision, and <lambda> returned 0.5"),
    ):
        with pytest.raises(ValueError, match=sentence):
            train_pruned(task, schedule, goal)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no other, and this one has"):
        train_pruned(task, lambda state: Decision(density={"1": 0.5}), goal)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PruningGoal(density=0.5, steps=float("inf")), "goal.steps"),
        (lambda: PruningGoal(density=0.5, steps=0.5), "at least 1 step"),
        (lambda: PruningGoal(density="a", steps=5), r"goal.density"),
        (lambda: Decision(density=0.5, until=float("nan")), "until"),
        (lambda: Decision(density=0.5, allocation="er"), "allocation must be global, uniform or erk"),
        (lambda: iterative_magnitude(rewind="start"), r"rewind.*learning_rate"),
        (lambda: PruningRun(digits_task("dense"), PruningGoal(density=0.5, steps=1), seed=-1), "seed must be in"),
    ],
)
def test_values_that_cannot_be_are_named(make: object, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()  # type: ignore[operator]


def test_training_without_channels_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: list[bytes]
) -> None:
    monkeypatch.setattr(engine, "SAVED_STEPS", 0.0)
    monkeypatch.setattr(engine, "SAVE_EVERY", 3)
    goal = PruningGoal(density=0.5, steps=8, granularity="channel", start="initial")
    schedule = iterative_magnitude(rounds=2, rewind="step", rewind_step=1)

    def run(folder: Path) -> PrunedTraining:
        return train_pruned(noise_task("normed"), schedule, goal, recipe=RECIPES["adamw"], folder=folder)

    whole = run(tmp_path)
    for number, state in enumerate(checkpoints[1:-1:3]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / engine.CHECKPOINT).write_bytes(state)
        again = run(folder)
        assert again.history == whole.history
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[name])


@pytest.mark.parametrize("granularity", ["weight", "channel"])
def test_looking_ahead_leaves_everything_as_it_was(granularity: str) -> None:
    """Weights, statistics of norms, the optimizer, masks, the order of samples, dropout's numbers and torch's own."""
    run = PruningRun(digits_task(), PruningGoal(density=0.5, steps=20, granularity=granularity), RECIPES["sgd"])
    run.meter = SignalMeter(run, 4)
    run.decide(Decision(density=0.8, steps=4))
    run.train()
    before, numbers = run.snapshot(), torch.get_rng_state()
    signals = run.meter.measure()
    assert signals.values["lookahead_target"] != 0
    after = run.snapshot()
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(value, after.tensors[name]) for name, value in before.tensors.items())
    changed = {key for key, value in before.numbers.items() if value != after.numbers[key]}
    assert changed <= {"memory"}, "what later signals are relative to, and nothing else"
    assert torch.equal(numbers, torch.get_rng_state())
    assert run.model.training is False
