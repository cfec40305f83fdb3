"""The ladder's command runs, goes on where it was stopped, and its tables say what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.comparison.run_summary import read_summaries
from experiments.cells import kept, pack, unpack
from experiments.ladder.stages import RIVALS, STAGES, Stage
from tests.commands import run_python

SCRIPT = Path(__file__).parent.parent / "experiments" / "ladder" / "run"
QUICK = ["--quick", "--processes", "1", "--out"]


@pytest.mark.slow
def test_every_stage_is_measured_and_kept(tmp_path: Path) -> None:
    first = run_python("from experiments.ladder.command import main; main()", *QUICK, str(tmp_path), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    tables, live = (read_summaries(tmp_path / f"{name}.jsonl.gz") for name in ("tables", "live"))
    assert {trial.agent for trial in tables} == {"uniform", "evolution", "critic_guided"}
    assert {trial.agent for trial in live} == {"uniform", "random", *RIVALS}
    for trial in (*tables, *live):
        assert trial.own.costs["macs"] <= 0.5 * trial.dense["macs"]
        if trial.optimum is not None:
            assert trial.own.score <= trial.optimum + 1e-9
    assert {trial.seed for trial in live if trial.own.recovered is not None} == {0}
    (rival,) = (trial for trial in live if trial.agent == "torch_pruning")
    (widths,) = (trial for trial in live if trial.agent == "torch_pruning_widths")
    assert rival.own.plan == widths.own.plan
    assert rival.own.test != widths.own.test  # other units, and no repair
    regrets = [
        row["regret"] for job in json.loads((tmp_path / "tables.json").read_text())["searched"] for row in job["trials"]
    ]
    assert min(regrets) >= 0
    assert max(regrets) == 1
    table = (tmp_path / "README.md").read_text()
    assert all(f"`{agent}`" in table for agent in ("critic_guided", "random", *RIVALS))

    subprocess.run([sys.executable, SCRIPT, *QUICK, str(tmp_path)], check=True, capture_output=True, cwd=tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == written


def test_cells_of_an_archive_go_on_on_another_machine(tmp_path: Path) -> None:
    here, there, archive = tmp_path / "here", tmp_path / "there", tmp_path / "cells.jsonl.gz"
    unpack(archive, here)  # none was committed yet
    kept(here / "part", "a 0.5", lambda: {"score": 0.1})
    kept(here, "b", lambda: [1, None])
    pack(here, archive)
    kept(there, "b", lambda: "its own")
    unpack(archive, there)
    assert kept(there / "part", "a 0.5", pytest.fail) == {"score": 0.1}
    assert kept(there, "b", pytest.fail) == "its own"
    before = archive.read_bytes()
    pack(here, archive)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_every_agent_has_its_seeds_in_every_cell_once(stage: Stage) -> None:
    jobs = stage.jobs()
    found = [(job.cell, job.agent, seed) for job in jobs for seed in job.seeds]
    assert len(set(found)) == len(found)
    wanted = {
        (cell, agent, s)
        for part in stage.parts
        for cell in part.cells
        for agent, n in part.seeds.items()
        for s in range(n)
    }
    assert set(found) == wanted
