"""The documents' examples do what the documents say."""

import functools
import importlib
import math
import re
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import autoprune
import autoprune.coding
from autoprune.coding.byte_reader import DamagedBytes
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.outcome import Metrics
from autoprune.importance.criterion import rank
from autoprune.recover.fine_tune import fine_tune
from autoprune.schedule.signals import FEATURES
from autoprune.structure.graph import find_structure
from autoprune.task.shipped import digits
from tests.tasks import prepared, scored_task

ROOT = Path(__file__).parent.parent


def test_the_new_criterion_ranks_every_group() -> None:
    code, settings = _blocks("docs/add_a_criterion.md", "python")[0], _blocks("docs/add_a_criterion.md", "yaml")[0]
    names: dict[str, object] = {}
    exec(code, names)
    target = dict(OmegaConf.create(settings))
    task = digits()
    structure = find_structure(task.model, task.example_input)
    criterion = functools.partial(names["spread"], power=target.pop("power"))  # type: ignore[arg-type]
    scores = scored_task(criterion, task, structure)
    assert target == {"_target_": "autoprune.importance.spread.spread", "_partial_": True}
    assert set(rank(scores, structure, criterion="spread")) == set(structure.names)


def test_the_new_search_conforms() -> None:
    module, check = _blocks("docs/add_a_search.md", "python")
    names: dict[str, object] = {}
    exec(module, names)
    exec(check, names)
    settings = dict(OmegaConf.create(_blocks("docs/add_a_search.md", "yaml")[0]))
    assert settings == {"_target_": "autoprune.search.mixtures.search", "_partial_": True, "sigma": 0.1}


def test_a_padded_folder_is_loaded_by_transformers() -> None:
    exec(_blocks("docs/after_pruning.md", "python")[0], {})


def test_the_format_gives_back_every_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(_blocks("docs/format.md", "python")[0], names)
    assert names["size"] == (tmp_path / "small.apz").stat().st_size


def test_the_new_code_is_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source, use = _blocks("docs/add_a_code.md", "python")
    rice = types.ModuleType("autoprune.coding.rice")
    exec(source, rice.__dict__)
    monkeypatch.setitem(sys.modules, rice.__name__, rice)
    monkeypatch.setattr(autoprune.coding, "rice", rice, raising=False)
    exec(use, {})
    for symbols in ([], [0], [5, 0, 63, 1]):
        assert rice.decode(rice.encode(np.array(symbols, np.int64), 64), len(symbols), 64).tolist() == symbols
    with pytest.raises(DamagedBytes):
        rice.decode(b"\x01\xff", 3, 64)


def test_the_new_environment_option_scales_rewards() -> None:
    names: dict[str, object] = {}
    for block in _blocks("docs/add_an_environment_option.md", "python"):
        exec(block, names)
    plain, scaled = names["plain"], names["env"]
    assert isinstance(plain, gymnasium.Env)
    assert isinstance(scaled, gymnasium.Env)
    action = plain.action_space.sample()
    rewards = []
    for env in (plain, scaled):
        env.reset(seed=0)
        rewards.append(float(env.step(action)[1]))
    assert rewards[1] == pytest.approx(10 * rewards[0])


def test_the_new_task_is_twenty_lines_and_makes_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, environment, *_ = _blocks("docs/add_a_task.md", "python")
    function = module[module.index("def my_task") :]
    assert len(function.strip().splitlines()) <= 20
    (tmp_path / "my_module.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {}
    try:
        exec(environment, names)
    finally:
        sys.modules.pop("my_module", None)
        importlib.invalidate_caches()
    env = names["env"]
    assert isinstance(env, gymnasium.Env)
    env.reset(seed=0)


DOCUMENTED = {
    "segmenter": "segmentation",
    "regressor": "regression",
    "detector": "classification",
    "speech": "classification",
    "unlabelled": "embedding",
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_task_of_every_kind_is_pruned_judged_and_recovered(name: str) -> None:
    blocks = _blocks("docs/add_a_task.md", "python")
    names: dict[str, object] = {}
    for block in (blocks[0], next(block for block in blocks if f"def {name}" in block)):
        exec(block, names)
    task = names[name]()  # type: ignore[operator]
    assert task.outputs[0].kind == DOCUMENTED[name]
    problem = prepared(task, proxy_samples=20, batch_size=10)
    plan = problem.structure.plan(np.array([max(1, group.units // 2) for group in problem.structure.groups]))
    (outcome,) = problem.objective.evaluate([plan])
    assert 0 < outcome.metrics.kl < math.inf
    assert math.isnan(outcome.metrics.accuracy) == (name == "unlabelled")
    small = problem.pruned(plan)
    learned = fine_tune(
        small, task, teacher=task.model, steps=3, learning_rate=0.02, weight_decay=0.0, distillation=0.9,
        temperature=4.0, bf16=False, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert Judge(task, task.data.test)(learned).kl < math.inf


def test_the_readme_search_finds_a_smaller_network(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in _blocks("README.md", "python") if "ProblemSpec" in block)
    assert len([line for line in example.strip().splitlines() if line]) <= 10
    names: dict[str, object] = {}
    exec(example, names)
    problem, smaller = names["problem"], names["smaller"]
    assert isinstance(smaller, torch.nn.Module)
    assert isinstance(problem, autoprune.Problem)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in problem.task.model.parameters())
    assert "accuracy" in capsys.readouterr().out


def test_the_readme_episode_ends_inside_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    episode = next(block for block in _blocks("README.md", "python") if "gym.make" in block)
    names: dict[str, object] = {}
    exec(episode, names)
    assert isinstance(names["reward"], float)
    assert names["info"]["outcome"].feasible  # type: ignore[index]
    assert capsys.readouterr().out


def test_the_readme_policy_plans_for_a_network_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in _blocks("README.md", "python") if "Policy.load" in block)
    assert len(example.strip().splitlines()) <= 20
    names: dict[str, object] = {}
    exec(example, names)
    assert isinstance(names["smaller"], torch.nn.Module)
    assert sum(p.numel() for p in names["smaller"].parameters()) < sum(
        p.numel()
        for p in names["network"].parameters()  # type: ignore[attr-defined]
    )
    assert capsys.readouterr().out.split()[0] in ("policy", "sensitivity", "uniform")


def test_the_documented_policy_plans_for_several_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    once, several = _blocks("docs/transfer.md", "python")
    names: dict[str, object] = {"my_task": lambda: "digits"}
    exec(once, names)
    exec(several, names)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][-3:] == ["0.3", "0.5", "0.7"]


def test_the_readme_task_has_every_role() -> None:
    task = next(block for block in _blocks("README.md", "python") if "def my_task" in block)
    body = task.replace("from my_project import load_images, load_network\n", "")
    names: dict[str, object] = {
        "load_images": lambda: (torch.randn(11_500, 3, 32, 32), torch.zeros(11_500, dtype=torch.long)),
        "load_network": lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 10, 32), torch.nn.Flatten()),
    }
    exec(body, names)
    made = names["my_task"]()  # type: ignore[operator]
    assert isinstance(made, autoprune.Task)
    assert len(task.strip().splitlines()) <= 20


def test_the_documented_schedule_is_twenty_lines_and_meets_its_goal() -> None:
    block = _blocks("docs/schedules.md", "python")[0]
    function = block[block.index("def patient") : block.index("pruned = ")]
    assert len(function.strip().splitlines()) <= 20
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["pruned"].removed_last == 0
    assert names["pruned"].density == pytest.approx(0.1, abs=1e-4)
    assert len({record["density"] for record in names["pruned"].history}) > 2


@pytest.mark.slow
def test_the_documented_agents_learn_on_the_environments(capsys: pytest.CaptureFixture[str]) -> None:
    for block in _blocks("docs/schedules.md", "python")[1:]:
        names: dict[str, Any] = {}
        exec(block, names)
    out = capsys.readouterr().out
    assert "density 0.050" in out
    assert out.count("regret") == 3
    explained = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "schedules.md").read_text(), re.MULTILINE))
    assert set(FEATURES) <= explained


def test_every_measured_quantity_is_explained() -> None:
    explained = re.findall(r"`([a-z]+/[\w*]+)`", (ROOT / "docs" / "metrics.md").read_text())
    measured = [f"search/{field.name}" for field in fields(Metrics)] + ["search/score", "search/reward", "search/best"]
    assert set(measured) <= set(explained)
    assert {f"cost/{cost}" for cost in ("macs", "params", "bytes")} <= set(explained)


def _blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
