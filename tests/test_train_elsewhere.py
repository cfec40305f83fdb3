"""docs/train_elsewhere.md, executed: other people's agents learn on the environments."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import commands

DOCUMENT = (Path(__file__).parent.parent / "docs" / "train_elsewhere.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the documented file, where it can be imported and run."""
    (tmp_path / "my_ppo.py").write_text(blocks("python")[0], encoding="utf-8")
    (tmp_path / "my_conf" / "agent").mkdir(parents=True)
    (tmp_path / "my_conf" / "agent" / "my_ppo.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_ppo", raising=False)
    return tmp_path


@pytest.mark.slow
def test_one_file_of_ppo_learns_and_not_without_learning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= 80
    use = blocks("python")[1]
    names: dict[str, Any] = {}
    exec(use, names)
    rendered, scores = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert "reward: " in rendered
    assert "'uniform'" in scores
    assert names["problem"].projector.budget.meets(np.array(names["plan"].kept))
    control: dict[str, Any] = {}
    exec(use.replace("updates=30", "learning_rate=0.0, updates=30"), control)
    assert control["returns"] != names["returns"]
    learned, still = (np.mean(each["returns"][-10:]) for each in (names, control))
    assert learned > still + 0.1
    dense = sum(p.numel() for p in names["problem"].task.model.parameters())
    assert sum(p.numel() for p in names["smaller"].parameters()) < dense


@pytest.mark.slow
def test_it_is_a_search_by_the_rules_and_by_the_command(folder: Path) -> None:
    exec(blocks("python")[2], {})
    (command,) = (line for line in "\n".join(blocks("bash")).splitlines() if "my_ppo,evolution" in line)
    changed = command.replace("my_ppo,evolution", "my_ppo").replace("evaluations=100", "evaluations=20")
    arguments = [each for each in shlex.split(changed)[1:] if each != "-m" and not each.startswith(("seed", "hydra"))]
    run = folder / "run"
    small = ["experiment=smoke", "recover=none", "tracking=none", f"hydra.run.dir={run}"]
    done = commands.run(*arguments, *small, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "run.json").read_text())["agent"] == "my_ppo"
    assert json.loads((run / "result.json").read_text())["evaluations"]["spent"] in range(10, 21)


@pytest.mark.slow
def test_stable_baselines_learns_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        names: dict[str, Any] = {}
        exec(blocks("python")[3], names)
    spent, plan = capsys.readouterr().out.splitlines()
    assert spent.startswith("100 (")
    assert plan.startswith("(")
    assert names["info"]["outcome"].feasible


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("rl_zoo3") is None,
    reason="rl_zoo3 is not installed: it needs Optuna 3, and the sweeper that is tested here Optuna 2 "
    "(docs/train_elsewhere.md has an environment for it)",
)
def test_rl_zoo3_trains_and_shows(tmp_path: Path) -> None:
    (tmp_path / "zoo.yml").write_text(blocks("yaml")[1], encoding="utf-8")
    for line in "\n".join(blocks("bash")).splitlines():
        if line.startswith("zoo/bin/python"):
            command = [sys.executable, *shlex.split(line)[1:], "--device", "cpu"]
            done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300)
            assert "rl_zoo3.enjoy" not in line or "3 Episodes" in done.stdout
    for name in ("OneShot", "Schedule", "Rounds"):
        assert list(tmp_path.glob(f"logs/ppo/autoprune-{name}-v0_1/best_model.zip"))
