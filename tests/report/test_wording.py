import io
from pathlib import Path

import pytest
from rich.console import Console

from autoprune.report import wording
from autoprune.report.contents import read_contents
from autoprune.report.page import render
from autoprune.report.run_facts import harmed, planned, spent
from autoprune.report.terminal import print_result
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", evaluations=60)


def headline(run: RunFolder) -> str:
    return wording.headline(read_contents(run)).replace(wording.GAP, " ")


def choice(run: RunFolder) -> str:
    return wording.choice(read_contents(run))


def change(run: RunFolder, network: str, **values: object) -> None:
    result = run.read_json("result.json")
    result["networks"][network] |= values
    run.write_json("result.json", result)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1234, "1.23 k"), (999_900, "1,000 k"), (40_600_000, "40.6 M"), (7.5e9, "7.5 G")],
)
def test_counts(value: float, shown: str) -> None:
    assert wording.count(value).replace(wording.GAP, " ") == shown


def test_sizes_and_durations() -> None:
    assert [wording.size(v).replace(wording.GAP, " ") for v in (12, 1234, 1.1e6)] == ["12 B", "1.23 kB", "1.1 MB"]
    assert [wording.duration(s) for s in (0.31, 42, 75, 7260)] == ["0.3 s", "42 s", "1 min 15 s", "2 h 1 min"]


@pytest.mark.parametrize(
    ("value", "digits", "plus", "shown"), [(-0.004, 2, True, "0.00"), (-0.5, 1, False, "−0.5"), (0.5, 1, True, "+0.5")]
)
def test_numbers_have_a_sign_that_means_something(value: float, digits: int, plus: bool, shown: str) -> None:
    assert wording.number(value, digits=digits, plus=plus) == shown


def test_what_was_not_measured_is_a_dash() -> None:
    formats = (wording.percent, wording.points, wording.number, wording.count, wording.size, wording.times)
    assert {show(None) for show in (*formats, wording.milliseconds, wording.duration)} == {wording.DASH}


def test_the_headline_is_one_plain_sentence(run: RunFolder) -> None:
    expected = "35.0 % of the MACs, 1.9× faster in ONNX Runtime, 92.3 % accuracy after recovery (dense 92.8 %)"
    assert headline(run) == expected


def test_the_headline_says_slower_and_no_faster(run: RunFolder) -> None:
    change(run, "searched", latency_ms={"onnxruntime": {"median": 1.12, "low": 1.1, "high": 1.2}})
    assert "2.0× slower in ONNX Runtime" in headline(run)
    change(run, "searched", latency_ms={"onnxruntime": {"median": 0.55, "low": 0.5, "high": 0.6}})
    assert "no faster in ONNX Runtime (odd widths are slow: set structure.round_to=auto, a lower budget" in headline(
        run
    )
    run.write_json("structure.json", {**run.read_json("structure.json"), "round_to": "auto"})
    assert "no faster in ONNX Runtime (set a lower budget, or budget=latency" in headline(run)


def test_the_steps_of_levels_are_counted_by_group() -> None:
    groups = [{"levels": [4, 8, 12]}, {"levels": [8, 16]}, {"levels": [4, 8]}, {"levels": [0, 1]}, {"levels": [5]}]
    assert wording.level_steps(groups) == "of 1 unit in 1 group, of 4 in 2, of 8 in 1"
    assert wording.level_steps([{"levels": [5]}]) == wording.level_steps([]) == ""


def test_numbers_agree_with_their_nouns() -> None:
    assert [wording.counted(n, "unit") for n in (0, 1, 2, 1500)] == ["0 units", "1 unit", "2 units", "1,500 units"]
    assert wording.level_steps([{"levels": [8, 16]}] * 2) == "of 8 units in 2 groups"


def test_a_recovery_that_harmed_is_said(run: RunFolder) -> None:
    assert harmed(read_contents(run)) == ""
    change(run, "searched", harmed={"accuracy": 0.24, "kl": 2.5})
    assert "recovery made it worse and was left out" in headline(run)
    assert "76.2 % accuracy without recovery" in headline(run)
    sentence = harmed(read_contents(run)).replace(wording.GAP, " ")
    assert sentence.startswith("Recovery made 1 network worse on search data that no reward has seen")
    assert "to 24.0 %" in sentence
    assert "to 2.500)" in sentence
    assert "recover=none" in sentence
    change(run, "searched", harmed={})  # whose outputs were not finite
    assert f"to {wording.DASH}" in harmed(read_contents(run))
    console = Console(file=(file := io.StringIO()), width=200)
    print_result(run, console)
    assert "Recovery made 1 network worse" in file.getvalue()
    assert "Recovery made 1 network worse" in render(read_contents(run))


def test_what_the_baselines_took_and_what_was_planned() -> None:
    assert spent({"spent": 15, "limit": 20}) == "15 spent of 20"  # of runs before 0.2
    text = spent({"spent": 15, "limit": 20, "baselines": {"plans": 97, "whole": 21.5}})
    assert (
        text
        == "15 spent of 20; the baselines took 97 plans besides, judged on as many samples as 21.5 whole evaluations"
    )
    seconds = {"search": 60.0, "recover": 3.0, "total": 70.0}
    assert planned(seconds, {"prepare": (9, 9), "search": (30, 90), "recover": (2, 3)}) == "32 s to 1 min 33 s"
    assert planned(seconds, {"search": (30, 30)}) == "30 s"
    assert planned(seconds, {}) == ""


def test_the_headline_falls_back_to_torch_and_to_the_post_training_accuracy(run: RunFolder) -> None:
    change(run, "searched", latency_ms={"torch": {"median": 1.35, "low": 1.3, "high": 1.4}}, after=None)
    assert "2.0× faster in torch, 76.2 % accuracy without recovery" in headline(run)


def test_speedups_are_quotients_to_dense(run: RunFolder) -> None:
    contents = read_contents(run)
    searched, dense = contents.network("searched"), contents.network("dense")
    assert searched is not None
    assert wording.theoretical_speedup(searched, dense) == pytest.approx(1 / 0.3497)
    assert wording.speedup(searched, dense, "onnxruntime") == pytest.approx(1 / 0.53)
    assert wording.speedup(searched, dense, "tensorrt") is None
    assert wording.share(searched, dense, "macs") == pytest.approx(0.3497)


def test_the_choice_says_whose_plan_it_is(run: RunFolder) -> None:
    assert choice(run).startswith("The search's own plan was chosen.")
    result = run.read_json("result.json")
    run.write_json("result.json", {**result, "chosen": "uniform"})
    assert "The uniform plan was chosen: the search's own plan did not beat this baseline." in choice(run)
    result["networks"]["searched"]["plan"] = result["networks"]["sensitivity"]["plan"]
    run.write_json("result.json", result)
    assert "The search ended on the sensitivity plan itself." in choice(run)


def test_an_unfinished_run_says_how_far_it_came(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=200, finished=False)
    assert "This run has not finished: 100 evaluations are here; the best plan so far has the score −0." in headline(
        run
    )
    (run.path / "history.jsonl").unlink()
    assert headline(run) == "This run has not finished: 0 evaluations are here, and no plan inside the budget yet"


def test_fewer_key_blocks_are_said_to_need_a_kernel(run: RunFolder) -> None:
    assert wording.without_kernel(read_contents(run)) == ""
    structure, result = run.read_json("structure.json"), run.read_json("result.json")
    structure["groups"].append({"name": "attention.keys", "granularity": "key_block", "units": 8, "layers": []})
    run.write_json("structure.json", structure)
    for name, network in result["networks"].items():
        network["plan"]["attention.keys"] = {"units": 8, "kept": 3 if name == "searched" else 8}
    run.write_json("result.json", result)
    note = wording.without_kernel(read_contents(run))
    assert "(searched)" in note
    assert "no speedup here without such a kernel" in note
    assert note in render(read_contents(run))
    console = Console(file=io.StringIO(), width=400)
    print_result(run, console)
    assert note in console.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_is_called_recovered_where_nothing_was_trained(run: RunFolder) -> None:
    """Without recovery, a run's networks are afterwards what they were before."""
    assert "after recovery" in headline(run)
    for name in ("searched", "uniform", "sensitivity"):
        change(run, name, after=run.read_json("result.json")["networks"][name]["before"])
    assert "76.2 % accuracy without recovery" in headline(run)
    assert all(not network.recovered for network in read_contents(run).networks)
    change(run, "uniform", after={"accuracy": 0.9, "loss": 0.3})
    assert read_contents(run).network("searched").recovered, "its own training may have changed nothing"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("files", "removed", "sentence"),
    [
        ({"apz": 40_000}, 0, "Its budget of 40 kB is met."),
        ({"apz": 39_999}, 1234, "met, for which 1,234 of its smallest weights went beside those of the plan."),
        ({"apz": 40_800}, 0, "Its budget of 40 kB is missed by 2.00 %."),
        ({"apz_predicted": 40_800}, 0, "Its budget of 40 kB is missed by 2.00 %."),
    ],
)
def test_files_are_held_against_a_budget_of_bytes(
    run: RunFolder, files: dict[str, int], removed: int, sentence: str
) -> None:
    change(run, "dense", file_bytes={"safetensors": 1_100_000})
    change(run, "searched", file_bytes={"safetensors": 1_100_000, **files}, file_limit={"removed": removed})
    assert "Its budget" not in wording.on_the_disk(read_contents(run))
    result = run.read_json("result.json")
    result["budget"] |= {"cost": "encoded_bytes", "unit": "bytes", "limit": 40_000.0}
    run.write_json("result.json", result)
    assert sentence in wording.on_the_disk(read_contents(run)).replace(wording.GAP, " ")
