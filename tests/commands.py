"""The installed command, as a user starts it."""

import subprocess
import sys
from pathlib import Path

AUTOPRUNE = Path(sys.executable).with_name("autoprune")
MY_TASK = """
import torch
from torch import nn
import autoprune

def my_task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    def role(samples):
        return autoprune.Role(torch.randn(samples, 1, 6, 6), torch.randint(4, (samples,)))
    data = autoprune.Roles(train=role(200), calibration=role(50), search=role(100), test=role(50))
    return autoprune.Task(model, torch.zeros(1, 1, 6, 6), data, budget="macs:0.5")
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AUTOPRUNE, *arguments], cwd=cwd, text=True, capture_output=True, timeout=300)
