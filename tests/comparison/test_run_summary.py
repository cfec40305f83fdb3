import gzip
import json
from pathlib import Path

import pytest

from autoprune.comparison.run_summary import RunSummary, read_summaries, write_summaries
from tests.comparison.run_summaries import ladder, summary


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.jsonl.gz"])
def test_trials_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    runs = ladder(["ppo", "random"], seeds=3)
    write_summaries(tmp_path / name, runs)
    assert read_summaries(tmp_path / name) == runs


def test_a_compressed_file_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_summaries(tmp_path / name, ladder(["ppo"], seeds=2))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_json_needs_no_more_than_the_required_fields() -> None:
    record = summary("ppo", -0.5).as_json()
    small = {key: record[key] for key in ("task", "agent", "seed", "budget", "evaluations", "own")}
    read = RunSummary.from_json(json.loads(json.dumps(small)))
    assert (read.own, read.baselines, read.anytime) == (summary("ppo", -0.5).own, {}, None)


@pytest.mark.parametrize("broken", ['{"task": "digits"}', "[1, 2]", "not json", '{"own": {"plan": {}}, "unknown": 1}'])
def test_a_damaged_line_is_named(broken: str, tmp_path: Path) -> None:
    write_summaries(tmp_path / "runs.jsonl", [summary("ppo", -0.5)])
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write(broken + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 2"):
        read_summaries(tmp_path / "runs.jsonl")


def test_a_truncated_compressed_file_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(b"x" * 10_000)
    (tmp_path / "runs.jsonl.gz").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="damaged"):
        read_summaries(tmp_path / "runs.jsonl.gz")
    with pytest.raises(FileNotFoundError):
        read_summaries(tmp_path / "none.jsonl.gz")


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        summary("ppo", -0.5, seconds=float("nan")).as_json()


def test_the_incumbent_at_an_evaluation() -> None:
    curve = ladder(["ppo"], seeds=1)[0].anytime
    assert curve is not None
    assert curve.at(0) is None
    assert [found.evaluation for e in (1, 1.9, 3, 1000) if (found := curve.at(e))] == [1, 1, 2, 300]


def test_the_share_of_the_cost() -> None:
    assert summary("ppo", -0.5, budget="macs:0.2").cost_left == pytest.approx(0.2)
    assert summary("ppo", -0.5, budget_cost="latency").cost_left is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.jsonl", None, r"none.jsonl"),
        ("text.jsonl", b"hello\n", r"text.jsonl, line 1.*JSON: 'hello'"),
        ("latin.jsonl", b"\xff\xfe", "latin.jsonl is damaged"),
        ("text.jsonl.gz", b"hello", "text.jsonl.gz is damaged"),
    ],
)
def test_what_is_no_file_of_summaries_is_a_sentence(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        read_summaries(tmp_path / name)
