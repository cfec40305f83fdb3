import gzip
import json
from pathlib import Path

import pytest

from autoprune.comparison.run_summary import RunSummary, read_trials, write_trials
from tests.comparison.synthetic import ladder, trial


@pytest.mark.parametrize("name", ["trials.jsonl", "trials.jsonl.gz"])
def test_trials_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    trials = ladder(["ppo", "random"], seeds=3)
    write_trials(tmp_path / name, trials)
    assert read_trials(tmp_path / name) == trials


def test_a_compressed_file_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_trials(tmp_path / name, ladder(["ppo"], seeds=2))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_json_needs_no_more_than_the_required_fields() -> None:
    record = trial("ppo", -0.5).as_json()
    small = {key: record[key] for key in ("task", "agent", "seed", "budget", "evaluations", "own")}
    read = RunSummary.from_json(json.loads(json.dumps(small)))
    assert (read.own, read.baselines, read.anytime) == (trial("ppo", -0.5).own, {}, None)


@pytest.mark.parametrize("broken", ['{"task": "digits"}', "[1, 2]", "not json", '{"own": {"plan": {}}, "unknown": 1}'])
def test_a_damaged_line_is_named(broken: str, tmp_path: Path) -> None:
    write_trials(tmp_path / "trials.jsonl", [trial("ppo", -0.5)])
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write(broken + "\n")
    with pytest.raises(ValueError, match=r"trials\.jsonl, line 2"):
        read_trials(tmp_path / "trials.jsonl")


def test_a_truncated_compressed_file_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(b"x" * 10_000)
    (tmp_path / "trials.jsonl.gz").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="damaged"):
        read_trials(tmp_path / "trials.jsonl.gz")
    with pytest.raises(FileNotFoundError):
        read_trials(tmp_path / "none.jsonl.gz")


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        trial("ppo", -0.5, seconds=float("nan")).as_json()


def test_the_incumbent_at_an_evaluation() -> None:
    curve = ladder(["ppo"], seeds=1)[0].anytime
    assert curve is not None
    assert curve.at(0) is None
    assert [found.evaluation for e in (1, 1.9, 3, 1000) if (found := curve.at(e))] == [1, 1, 2, 300]


def test_the_share_of_the_cost() -> None:
    assert trial("ppo", -0.5, budget="macs:0.2").cost_left == pytest.approx(0.2)
    assert trial("ppo", -0.5, budget_cost="latency").cost_left is None
