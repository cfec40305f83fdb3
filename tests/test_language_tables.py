"""The tables of searches on language models, of cells whose answer is known; and what a search has read."""

from pathlib import Path
from typing import Any

import pytest

from experiments.language import layers, memory, schedules, study, weights
from experiments.language.command import PARTS, jobs
from experiments.language.searched import ready, searched


def run(schedule: str, windows: int, *best: tuple[int, float], seed: int = 0) -> dict[str, Any]:
    found = [{"windows": at, "kept": [1], "kl": kl, "held_out_kl": kl} for at, kl in best]
    return {"schedule": schedule, "seed": seed, "windows": windows, "best": found}


def cells_of(line: str) -> list[str]:
    return [part.strip() for part in line.strip("|").split("|")]


def test_tokens_are_counted_until_a_plan_is_as_good_as_evopress_s() -> None:
    theirs = run("evopress", 1000, (100, 3.0), (400, 2.0), (900, 1.0))
    ours = run("critic_guided", 600, (50, 3.0), (200, 1.9))
    rows = [cells_of(line) for line in schedules.table([theirs, ours])[2:]]
    assert [row[0] for row in rows] == ["evopress", "critic_guided"]
    assert rows[0][-2:] == ["1.00", "1.00"]
    assert rows[1][-2:] == ["0.50", "> 0.67"]  # 200 of 400 windows; and not there after 600 of 900


def test_a_search_is_compared_with_the_schedule_from_the_same_seed() -> None:
    theirs = [run("evopress", 100, (10, 3.0), (100, 2.0), seed=0), run("evopress", 100, (10, 3.0), (100, 1.0), seed=1)]
    ours = [run("evolution", 50, (50, 1.5), seed=1)]
    assert cells_of(schedules.table([*theirs, *ours])[3])[-1] == "> 0.50"


def test_ratios_are_of_the_uniform_plan_and_ties_are_not_worse() -> None:
    perplexity = {"dense": [10.0], "uniform": [100.0], "owl": [90.0], "evolution": [80.0, 100.0, 110.0]}
    found = [
        {"budget": "weights:0.5", "agent": agent, "seed": seed, "perplexity": {"text": value}}
        for agent, values in perplexity.items()
        for seed, value in enumerate(values)
    ]
    row = cells_of(weights.table(found)[2])
    assert row == ["`weights:0.5`", "text", "10.0", "100.0", "90.0", "96.7", "0.967, 1.100", "2 of 3 seeds"]


def test_memory_is_a_multiple_of_the_weights() -> None:
    cell = {"kind": "single weights", "peak_bytes": 2_150_000_000, "fp32_bytes": 500_000_000, "precision": "bf16"}
    assert cells_of(memory.table([cell])[2]) == ["single weights", "2.15 GB", "4.3", "bf16"]


def test_blocks_that_stay_are_named() -> None:
    values = dict.fromkeys(layers.MEASURES, 0.5)
    whole = dict.fromkeys(layers.MEASURES, 1.0)
    found = [
        {"agent": agent, "seed": 0, "kept": [1, 0, 1, 0, 0, 1], "dense": whole, "before": values, "after": values}
        for agent in layers.AGENTS
    ]
    assert cells_of(layers.table(found)[3]) == ["evenly spaced", "0, 2, 5", *["0.500"] * 4, "1"]


@pytest.mark.parametrize("part", PARTS)
def test_every_job_is_named_once(part: str) -> None:
    asked = jobs(part)
    assert len(set(asked)) == len(asked) > 0
    assert {job[0] for job in asked} == {part}


def test_what_a_search_has_read_is_the_sum_of_what_its_plans_were_judged_on(tmp_path: Path) -> None:
    task = (
        "task=digits",
        "budget=macs:0.5",
        "evaluation.proxy_samples=40",
        "evaluation.race=null",
        "repair=batch_norm",
    )
    found = searched(ready(task, store=tmp_path), ["agent=random"], evaluations=5, seed=0)
    assert found.spent == 5 * 40
    scores = [score for _, _, score in found.best]
    assert scores == sorted(scores)
    assert all(windows % 40 == 0 for windows, _, _ in found.best)


def test_the_study_shows_what_was_made_and_cheap_allocations_come_first() -> None:
    cells = study.cells()
    assert len(cells) == len(set(cells)) == 1 + len(study.CRITERIA) * len(study.BUDGETS) * len(study.ALLOCATIONS)
    assert [allocation for *_, allocation in cells[:4]] == ["dense", "uniform", "uniform", "uniform"]
    made = [
        {"criterion": "wanda", "budget": "weights:0.5", "allocation": allocation, "perplexity": {"a": value, "b": 9.0}}
        for allocation, value in (("dense", 10.0), ("uniform", 20.0), ("ramp", 15.0))
    ]
    rows = [cells_of(line) for line in study.table(made)[2:]]
    assert rows[0] == ["wanda", "`weights:0.5`", "a", "10.0", "20.0", "–", "15.0", "–"]
    assert [row[2] for row in rows] == ["a", "b"]
    assert jobs("study")[1] == ("study", "weights:0.5", "wanda/uniform", 0)
