"""The command, on a task of the user's own."""

import subprocess
from pathlib import Path

import pytest

from tests import commands

CARELESS = [f"device.care.{key}={value}" for key, value in {
    "rounds": 2, "burst": 1, "tolerance": 9.0, "most": 2, "unstable": 1.0, "drift": 1e9,
}.items()]  # fmt: skip
TASK = """
import torch
from torch import nn
from autoprune import Role, Roles, Task

def my_task():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    def role(n):
        return Role(torch.randn(n, 1, 8, 8), torch.randint(4, (n,)))
    roles = Roles(train=role(64), calibration=role(32), search=role(60), test=role(40))
    return Task(net, torch.zeros(1, 1, 8, 8), roles, name="mine", budget="macs:0.5")
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "my_module.py").write_text(TASK)
    environment = {"PATH": "/usr/bin:/bin", "AUTOPRUNE_CACHE": str(folder / "cache"), "HOME": str(folder)}
    return commands.run(*arguments, cwd=folder, env=environment | {"WANDB_MODE": "offline"})


def test_a_device_without_tables_and_one_that_needs_none_are_errors(tmp_path: Path) -> None:
    done = run(tmp_path, "profile", "task._target_=my_module.my_task", "device=phone_cpu")
    assert done.returncode == 1
    assert "needs no profile; profile device=this_cpu" in done.stderr
    assert not list(tmp_path.glob("*.log"))


@pytest.mark.slow
def test_profile_then_search_for_a_latency(tmp_path: Path) -> None:
    mine = "task._target_=my_module.my_task"
    done = run(tmp_path, "profile", mine, "plans=10", "checked=4", *CARELESS)
    assert done.returncode == 0, done.stderr
    for told in ("mine on this CPU, onnxruntime", "preferred widths", "predicted", "Predictions are off by"):
        assert told in done.stdout, done.stdout
    again = run(tmp_path, "profile", mine, "plans=10", "checked=4", *CARELESS)
    assert "conv" not in again.stdout.replace("device", ""), "all pieces were measured"
    settings = ["agent=random", "evaluations=4", "recover=none", "tracking=none", "hydra.run.dir=run", "seed=1"]
    searched = run(tmp_path, "search", mine, "device=this_cpu", "budget=[macs:0.9,latency:50ms]", *settings)
    assert searched.returncode == 0, searched.stderr
    assert "On this CPU, onnxruntime, batch 1, fp32:" in searched.stdout
    assert "measured speedup" in (tmp_path / "run" / "report.html").read_text()
