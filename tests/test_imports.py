"""Importing does nothing but define names, and `import autoprune` brings only what everyone needs."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import autoprune

MODULES = sorted(module.name for module in pkgutil.walk_packages(autoprune.__path__, prefix="autoprune."))
HEAVY = ("hydra", "matplotlib", "onnxruntime", "sb3_contrib", "sklearn", "stable_baselines3", "torch_pruning", "wandb")

IMPORT_ALL = f"""
import hashlib, importlib, json, os, random, sys
# what these libraries do themselves when they are imported is not ours, so they come before the first look
import gymnasium, hydra, matplotlib, numpy, onnxruntime, rich.progress, sb3_contrib, sklearn, torch
import torch_pruning, wandb

def state():
    kind, keys, *rest = numpy.random.get_state()
    return {{
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch": [torch.initial_seed(), hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()],
        "numpy": [kind, hashlib.sha256(keys.tobytes()).hexdigest(), *rest],
        "random": hashlib.sha256(repr(random.getstate()).encode()).hexdigest(),
        "modes": [str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "environment": dict(os.environ),
        "folder": sorted(os.listdir()),
    }}

before = state()
for module in {MODULES!r}:
    importlib.import_module(module)
json.dump([before, state()], sys.stdout)
"""


def test_every_module_is_found() -> None:
    assert {"autoprune.plan", "autoprune.structure.graph", "autoprune.cli"} <= set(MODULES)


def test_importing_every_module_changes_nothing(tmp_path: Path) -> None:
    before, after = json.loads(_python(IMPORT_ALL, tmp_path))
    assert after == before


def test_importing_autoprune_leaves_the_heavy_libraries_alone(tmp_path: Path) -> None:
    loaded = json.loads(_python("import json, sys, autoprune; json.dump(sorted(sys.modules), sys.stdout)", tmp_path))
    assert not set(HEAVY) & set(loaded)


def test_importing_autoprune_registers_the_environments(tmp_path: Path) -> None:
    code = "import autoprune, gymnasium; print(*(name for name in gymnasium.registry if name.startswith('autoprune/')))"
    names = [f"autoprune/{mode}-v0" for mode in ("Layerwise", "Levels", "OneShot", "Edit")]
    names += [f"autoprune/{mode}-v0" for mode in ("Schedule", "Rounds", "ScheduleTab")]
    assert _python(code, tmp_path).split() == names


def test_every_public_name_is_there_and_documented() -> None:
    for name in autoprune.__all__:
        public = getattr(autoprune, name)
        assert public.__doc__, f"autoprune.{name} has no docstring"


def _python(code: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout
