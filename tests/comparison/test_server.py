"""What can be known without a server: that there is none is said, and a report is put together."""

import sys
from pathlib import Path

import pytest

from autoprune.comparison.server import Project, publish, read_project, report_of


def test_a_project_is_named_by_two_or_three_parts() -> None:
    assert Project.parse("me/pruning") == Project("me", "pruning", None)
    assert Project.parse("me/pruning/sweep").group == "sweep"
    assert Project.parse("me/pruning/sweep").path == "me/pruning"
    for wrong in ("pruning", "me//sweep", "a/b/c/d", ""):
        with pytest.raises(ValueError, match="ENTITY/PROJECT"):
            Project.parse(wrong)


def test_offline_both_ways_are_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(RuntimeError, match=r"wandb=….*RUN.*sweep=DIR"):
        read_project(Project("me", "pruning"))
    with pytest.raises(RuntimeError, match=r"publish=wandb needs a login"):
        publish(Project("me", "pruning"), title="", sentences=[""])


def test_without_a_key_there_is_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="there is none: run `wandb login`"):
        read_project(Project("me", "pruning"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb-workspaces 0.4
def test_a_report_shows_best_so_far_by_agent() -> None:
    report = report_of(Project("me", "pruning", "sweep"), title="t" * 200, sentences=["ppo is better.", "So it is."])
    assert (report.entity, report.project, len(report.title)) == ("me", "pruning", 128)
    grid = report.blocks[-1]
    assert [panel.y for panel in grid.panels[:2]] == [["search/best"], ["policy/score"]]
    assert [panel.metrics for panel in grid.panels[2:]] == [["result/policy_over_uniform"], ["result/accuracy_before"]]
    assert grid.runsets[0].groupby == ["config.agent"]
    assert "sweep" in str(grid.runsets[0].filters)
    assert [block.text for block in report.blocks[1:3]] == ["ppo is better.", "So it is."]


def test_the_package_for_reports_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", None)
    with pytest.raises(ImportError, match=r"autoprune\[report\]"):
        report_of(Project("me", "pruning"), title="", sentences=[""])
