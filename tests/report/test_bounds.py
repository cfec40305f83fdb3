"""Runs with several budgets: each is in the record, in the tables, the sentence and the picture."""

from pathlib import Path
from typing import Any

import pytest

from autoprune.records import describe_budget
from autoprune.report import wording
from autoprune.report.contents import read_contents
from autoprune.report.page import render
from autoprune.report.run_figures import plane
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run
from tests.tasks import prepared, tiny_task


def test_a_record_has_the_tightest_budget_and_all() -> None:
    both = describe_budget(prepared(tiny_task("digits_net"), budget="params:0.7,macs:0.5"))
    assert (both["cost"], both["relative"], both["text"]) == ("macs", 0.5, "params:0.7,macs:0.5")
    assert [(bound["text"], bound["cost"], bound["relative"]) for bound in both["bounds"]] == [
        ("params:0.7", "params", pytest.approx(0.7)),
        ("macs:0.5", "macs", 0.5),
    ]
    assert "bounds" not in describe_budget(prepared(tiny_task("digits_net"), budget="macs:0.5"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """As if energy had been bounded as well, of which every network takes what it takes of MACs."""
    folder = write_run(tmp_path / "run", evaluations=40)
    result: dict[str, Any] = folder.read_json("result.json")
    dense = result["networks"]["dense"]["cost"]["macs"]
    energy = {"text": "energy:25uJ", "cost": "energy", "unit": "mJ", "limit": 0.025, "dense": 0.05, "relative": 0.5}
    result["budget"]["bounds"] = [dict(result["budget"]), energy]
    for network in result["networks"].values():
        network["cost"]["energy"] = 0.05 * network["cost"]["macs"] / dense
    folder.write_json("result.json", result)
    return folder


def test_every_bounded_cost_is_shown(run: RunFolder) -> None:
    contents = read_contents(run)
    text = render(contents)
    assert ">energy</span></th>" in text
    assert f"0.05{GAP}mJ" in text
    assert "energy:25uJ: at most 0.025 mJ (50.00" in text
    assert "of the MACs and " in wording.headline(contents)
    assert " of the energy" in wording.headline(contents)
    assert plane(contents) is not None


def test_a_run_with_one_budget_has_one_bound(tmp_path: Path) -> None:
    contents = read_contents(write_run(tmp_path / "run", evaluations=20))
    assert contents.bounds == [contents.budget]
    assert list(wording.costs(contents)) == list(wording.COSTS)
