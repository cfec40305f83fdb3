"""Rounds and controls of lottery tickets: same training, same densities, gone on with bit for bit."""

from pathlib import Path

import pytest
import torch

from autoprune.schedule.lottery_tickets import LINES, ROUND, TicketSearch, TicketSettings
from autoprune.schedule.masked_training import TrainingRecipe
from tests.schedule.training_tasks import digits_task

RECIPE = TrainingRecipe(batch_size=64)
SETTINGS = TicketSettings(rounds=2, share=0.5, steps=6, check_every=3)


def search(settings: TicketSettings = SETTINGS, folder: Path | None = None) -> TicketSearch:
    return TicketSearch(digits_task("dense"), settings, RECIPE, seed=0, folder=folder)


def test_every_round_is_trained_alike_and_so_are_its_controls() -> None:
    tickets = search()
    run = tickets.run()
    assert [(row["kind"], row["round"]) for row in tickets.rows] == [
        ("dense", 0), ("ticket", 1), ("ticket", 2),
        ("reinitialised", 1), ("random", 1), ("one_shot", 1),
        ("reinitialised", 2), ("random", 2), ("one_shot", 2),
    ]  # fmt: skip
    for row in tickets.rows:
        assert row["weights"] == round(2368 * 0.5 ** row["round"])
        assert 0 < row["early_step"] <= 6
    for after, before in zip(tickets.masks[1:], tickets.masks, strict=False):
        assert all((before[name] | ~mask).all() for name, mask in after.items()), "what went stays away"
    assert run.training.clock.step == 18


def test_the_output_layer_loses_half_as_much() -> None:
    settings = TicketSettings(rounds=2, share=0.5, steps=2, allocation="uniform", output_rate=0.5, controls=())
    tickets = search(settings)
    tickets.run()
    kept = {name: int(mask.sum()) for name, mask in tickets.masks[-1].items()}
    assert kept == {"1.weight": 512, "3.weight": 180}


@pytest.mark.parametrize("cut_at", ["after round 1", "in a round", "in controls"])
def test_a_search_goes_on_bit_for_bit(cut_at: str, tmp_path: Path) -> None:
    whole = search(folder=tmp_path / "whole")
    end = whole.run()
    rounds: list[bytes] = []
    folder = tmp_path / "cut"

    class Cut(Exception):
        pass

    again = search(folder=folder)
    rows: list[str] = []

    def cut(row: dict[str, object]) -> None:
        rows.append(str(row["kind"]))
        if (cut_at, len(rows)) in (("after round 1", 3), ("in a round", 1), ("in controls", 5)):
            raise Cut

    again.on_row = cut
    with pytest.raises(Cut):
        again.run()
    assert rounds == []
    resumed = search(folder=folder)
    last = resumed.run()
    assert resumed.rows == whole.rows
    for name, value in end.model.state_dict().items():
        assert torch.equal(value, last.model.state_dict()[name])
    for masks, others in zip(whole.masks, resumed.masks, strict=True):
        assert all(torch.equal(mask, others[name]) for name, mask in masks.items())
    assert {LINES, ROUND} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rewind": "step", "rewind_step": 2000}, "needs a training that gets there"),
        ({"share": 1.0}, "below 1"),
        ({"rounds": 3, "control_rounds": (2, 5)}, "names round 5, and there are 3"),
        ({"output_rate": 0.5}, "needs allocation=uniform"),
    ],
)
def test_settings_that_do_not_fit_are_sentences(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TicketSettings(**arguments)  # type: ignore[arg-type]


def test_densities_that_cannot_be_reached_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match="ask for a density of at least"):
        search(TicketSettings(rounds=40, share=0.5, steps=2)).run()
