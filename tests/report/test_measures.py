import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoprune.report.contents import read_contents
from autoprune.report.measures import measure_table, samples
from autoprune.report.page import render
from autoprune.report.terminal import print_result
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run

EVIL = "[bold]<script>alert(1)</script>[/bold]\nand on"
MEASURES: dict[str, dict[str, Any]] = {
    "dense": {"perplexity_bible": 29.04, "decode_tokens_per_s": 21.3, "parameters": 134_515_008, "sample_1": "a lamp."},
    "searched": {"perplexity_bible": 41.26, "kv_cache_bytes_per_token": 23_040, "sample_1": EVIL},
    "uniform": {"perplexity_bible": 1e9, "parameters": 98_000_000, "sample_1": "the the the"},
}


def with_measures(path: Path, measures: dict[str, dict[str, Any]]) -> RunFolder:
    run = write_run(path / "run", evaluations=40)
    result = run.read_json("result.json")
    for name, values in measures.items():
        result["networks"][name]["measures"] = values
    run.write_json("result.json", result)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return with_measures(tmp_path_factory.mktemp("measures"), MEASURES)


def numbers(run: RunFolder) -> dict[str, list[str]]:
    return {row.label: [cell.text for cell in row.cells] for row in measure_table(read_contents(run).networks).rows}


def printed(run: RunFolder, *, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_result(run, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace(GAP, " ")


def test_numbers_stand_side_by_side_with_their_units(run: RunFolder) -> None:
    columns = measure_table(read_contents(run).networks).columns
    assert [name for _, name in columns] == ["dense", "uniform", "searched"]  # nothing of sensitivity was measured
    assert numbers(run) == {
        "perplexity, bible": ["29.0", f"1{GAP}G", "41.3"],
        "writing, tokens/s": ["21.3", "–", "–"],
        "parameters": [f"135{GAP}M", f"98{GAP}M", "–"],
        "KV cache per token": ["–", "–", f"23{GAP}kB"],
    }


def test_texts_stand_below(run: RunFolder) -> None:
    ((title, texts),) = samples(read_contents(run).networks)
    assert title == "Sample 1"
    assert [(network.name, text) for network, text in texts] == [
        ("dense", "a lamp."), ("uniform", "the the the"), ("searched", EVIL),
    ]  # fmt: skip


def test_measures_without_a_title_of_their_own_are_shown_as_well(tmp_path: Path) -> None:
    run = with_measures(tmp_path, {"dense": {"words_per_line": 12.0}})
    assert numbers(run) == {"words per line": ["12"]}
    assert samples(read_contents(run).networks) == []


def test_the_terminal_shows_both(run: RunFolder) -> None:
    text = printed(run, width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("perplexity, bible")]
    assert row.split() == ["perplexity,", "bible", "29.0", "1", "G", "41.3"]
    assert "dense: a lamp." in text
    assert "searched: [bold]<script>alert(1)</script>[/bold] and on" in text


def test_the_page_shows_both_and_trusts_neither(run: RunFolder) -> None:
    page = render(read_contents(run))
    assert "The task&#39;s own measures" in page or "The task's own measures" in page
    assert "41.3" in page
    assert "the the the" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_run_without_measures_says_nothing_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=40)
    page = render(read_contents(run))
    assert "own measures" not in page
    assert "What they write" not in page
    assert "perplexity" not in printed(run, width=120)
