"""The comparison page: what it says is what comparison.json holds, in one file that needs nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoprune.comparison.compare_runs import compare
from autoprune.comparison.reading import Missing
from autoprune.report.comparison_page import render_comparison, write_comparison_page
from autoprune.report.comparison_terminal import print_comparison
from autoprune.report.comparison_wording import (
    against_all,
    agent_sentence,
    headline,
    interval,
    listed,
    pair_sentence,
    second_line,
)
from autoprune.runs import RunFolder
from tests.comparison.run_summaries import ladder, runs_of
from tests.report.html_outline import EVIL, check_page, text_of

CELLS = (("digits", "macs:0.35"), ("digits", "macs:0.2"))
LOW, HIGH = [-0.42, -0.40, -0.41, -0.43], [-0.22, -0.20, -0.21, -0.23]


def as_json(folder: Path, *arguments: Any, **settings: Any) -> Any:
    RunFolder(folder).write_json("comparison.json", compare(*arguments, **settings))
    return RunFolder(folder).read_json("comparison.json")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    trials = ladder(["evolution", "ppo", "random"], seeds=5, cells=CELLS)
    missing = [Missing("sweep/job_7", "agent=amc seed=1", "failed: no memory")]
    return as_json(tmp_path_factory.mktemp("comparison"), trials, missing=missing)


@pytest.fixture(scope="module")
def page(result: Any) -> str:
    return render_comparison(result)


def test_the_page_is_whole(page: str) -> None:
    check_page(page)


def test_every_part_is_there(page: str) -> None:
    for part in (
        "Post-training", "Recovered", "Who is best", "Scores", "Who is better than whom", "In sentences",
        "If the search were stopped", "Against the clock", "Performance profiles", "Accuracy and cost", "Hypervolume",
        "Plans side by side", "What a search takes", "1 job without a result", "How to read this",
    ):  # fmt: skip
        assert part in page, part
    assert "agent=amc seed=1: failed: no memory" in text_of(page)


def test_the_regimes_are_two_parts(page: str) -> None:
    text = text_of(page)
    assert text.index("Post-training No gradient") < text.index("Recovered After the same recovery")
    assert "Percentage points of test accuracy above the uniform plan" in text


def test_every_ranked_agent_is_in_the_table_with_its_number(result: Any, page: str) -> None:
    text = text_of(page)
    for agent in result["post_training"]["agents"]:
        assert f"{agent['label']} " in text
        assert interval(agent["iqm"]) in text
    assert "uniform baseline 0.00" in text


def test_it_says_what_zero_and_one_are(page: str) -> None:
    assert "0 is −1.000 (uniform), 1 is" in text_of(page)
    assert "the best plan known, found by evolution" in text_of(page)


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    trials = ladder([EVIL, "random"], seeds=3, cells=((EVIL, "macs:0.35"),))
    page = render_comparison(as_json(tmp_path, trials, missing=[Missing(EVIL, EVIL, EVIL)]))
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_without_recovery_and_curves_the_page_is_shorter(tmp_path: Path) -> None:
    page = render_comparison(as_json(tmp_path, runs_of({"random": LOW, "ppo": HIGH})))
    assert "Nothing was recovered" in page
    assert "If the search were stopped" not in page
    assert "<h2>Recovered</h2>" not in page


def test_unranked_agents_have_a_row_and_no_interval(tmp_path: Path) -> None:
    page = text_of(render_comparison(as_json(tmp_path, runs_of({"random": LOW, "ppo": HIGH[:1]}))))
    assert "not ranked: one seed" in page
    assert "Read with care" in page


def test_the_same_data_make_the_same_page(result: Any, page: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).write_json("comparison.json", result)
    assert write_comparison_page(RunFolder(tmp_path)).read_text() == page


@pytest.mark.slow
def test_more_than_twenty_agents_stay_readable(tmp_path: Path) -> None:
    names = [f"agent_{i:02d} mode=one_shot" for i in range(21)]
    result = as_json(tmp_path, ladder(names, seeds=3, cells=CELLS[:1]))
    page = render_comparison(result)
    assert "17 others" in page  # six agents have colours, the others and two baselines are grey
    assert "more agents" in page
    assert all(name in page for name in names)
    assert len(page) < 4_000_000


def test_the_matrix_has_every_pair_both_ways(result: Any, page: str) -> None:
    for pair in result["post_training"]["pairs"]:
        value = pair["improvement"]["value"]
        assert f"P({pair['a']} is better than {pair['b']}) = {value:.2f}" in page
        assert f"P({pair['b']} is better than {pair['a']}) = {1 - value:.2f}" in page


def test_plans_say_how_many_units_are_kept(result: Any, page: str) -> None:
    for cell in result["plans"]:
        for agent, densities in cell["agents"].items():
            for group, units, density in zip(cell["groups"], cell["units"], densities, strict=True):
                assert f"{agent}: {group} keeps {density * units:g} of {units} units" in page


def test_headlines(tmp_path: Path) -> None:
    alone = as_json(tmp_path, runs_of({"ppo": HIGH, "random": LOW}))
    assert headline(alone).startswith("ppo is better than the other 3, with a score of")
    same = as_json(tmp_path, runs_of({"ppo": LOW, "random": LOW[::-1]}, baselines={}, optimum=None) + uniform())
    assert "at 4 seeds it cannot be told from random, and it is better than the other one" in headline(same)
    assert second_line(alone).startswith("Nothing was recovered")


def uniform() -> Any:
    return runs_of({"uniform": [-1.0] * 4}, baselines={})


def test_sentences_say_the_verdict_from_both_sides(result: Any) -> None:
    said = dict(against_all(result, "post_training"))
    for pair in result["post_training"]["pairs"]:
        turned = {"better": "worse", "worse": "better"}.get(pair["verdict"], pair["verdict"])
        assert pair["b"] in dict(said[pair["a"]])[pair["verdict"]]
        assert pair["a"] in dict(said[pair["b"]])[turned]
    assert (
        agent_sentence([("better", ["a", "b"]), ("no difference", ["c"])]) == "better than a and b; no different from c"
    )


def test_a_pair_is_a_plain_sentence(tmp_path: Path) -> None:
    result = as_json(tmp_path, runs_of({"ppo": HIGH, "random": LOW}))
    pair = next(p for p in result["post_training"]["pairs"] if (p["a"], p["b"]) == ("ppo", "random"))
    sentence = pair_sentence(result, pair, "post_training")
    assert re.fullmatch(
        r"ppo is better than random at 4 seeds: \+0\.\d\d \[\+0\.\d\d, \+0\.\d\d\], P\(better\) 1\.00", sentence
    )


def test_what_no_seed_changes_is_said_without_seeds_and_intervals(tmp_path: Path) -> None:
    result = as_json(tmp_path, runs_of({"uniform": [-1.0], "lamp": [-0.3]}, baselines={}))
    assert headline(result) == "lamp is better than the other one, with a score of 1.00 whatever the seed"
    assert "lamp 1.00" in text_of(render_comparison(result))


def test_the_terminal_has_both_regimes_and_what_is_missing(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(result)
    printed = capsys.readouterr().out
    for text in ("post-training", "recovered", "evolution", "missing: agent=amc seed=1: failed: no memory"):
        assert text in printed
    assert headline(result).split()[0] in printed


@pytest.mark.parametrize(("width", "columns"), [(80, False), (160, True)])
def test_the_terminal_has_columns_of_tasks_where_they_fit(
    width: int, columns: bool, result: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(result, Console(width=width))
    printed = capsys.readouterr().out
    assert "…" not in printed
    long = {**result, "cells": [{**cell, "cell": (40 * "x", cell["cell"][1])} for cell in result["cells"]]}
    print_comparison(long, Console(width=width))
    printed = capsys.readouterr().out
    assert (40 * "x" in printed) is columns
    assert "…" not in printed


def test_lists_of_names() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b", "c", "d"], most=3) == "a, b and 2 more"
