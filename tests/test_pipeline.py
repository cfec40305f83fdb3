"""The whole job on a small task, with real files: what a run's folder holds, and that it is true."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.evaluation.curves import curve_plans
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.race import Race
from autoprune.export.apz import save_apz
from autoprune.pipeline import Job
from autoprune.plan import PruningPlan
from autoprune.prior.starts import first_plan
from autoprune.problem.problem import Problem
from autoprune.quantize.quantized_network import no_quantization, quantize_codebook, quantize_int8
from autoprune.quantize.shared_weights import quantizable
from autoprune.report.contents import read_contents
from autoprune.report.page import render
from autoprune.report.wording import on_the_disk
from autoprune.runs import RunFolder
from autoprune.search import prior_plan
from autoprune.structure.code_bits import bits_of
from autoprune.structure.edit import masked, shrink
from autoprune.task.shipped import digits
from autoprune.task.task import Role, Roles, Task
from tests.jobs import job
from tests.tasks import prepared, tiny_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, Any]]:
    work = job(tmp_path_factory.mktemp("job") / "run", task=digits())
    return work, work.execute()


def test_the_history_has_every_evaluation(finished: tuple[Job, dict[str, Any]]) -> None:
    work, result = finished
    history = [json.loads(line) for line in (work.run.path / "history.jsonl").read_text().splitlines()]
    searched = [line for line in history if line["phase"] == "search"]
    assert [line["evaluation"] for line in searched] == list(range(1, 16))
    baselines = result["evaluations"].pop("baselines")
    assert result["evaluations"] == {"limit": 15, "spent": 15}
    plans = sum(map(len, curve_plans(work.problem.structure).values())) + 1 + 2  # the dense one, and two baselines
    assert baselines["plans"] == plans
    assert 3 <= baselines["whole"] <= plans
    best = [line["best"] for line in searched]
    assert best == sorted(best)
    assert best[-1] == max(line["score"] for line in searched)
    assert [line["phase"] for line in history[15:]] == ["baseline", "baseline"]


def test_costs_are_those_of_the_exported_network(finished: tuple[Job, dict[str, Any]]) -> None:
    work, result = finished
    network = autoprune.load(work.run.path)
    chosen = result["networks"][result["chosen"]]
    assert chosen["cost"]["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert chosen["cost"]["macs"] <= result["budget"]["limit"]
    assert chosen["file_bytes"]["safetensors"] == (work.run.path / "network" / "network.safetensors").stat().st_size


def test_the_reported_accuracy_is_the_exported_networks(finished: tuple[Job, dict[str, Any]]) -> None:
    work, result = finished
    task = work.problem.task
    metrics = Judge(task, task.data.test)(autoprune.load(work.run.path))
    assert result["networks"][result["chosen"]]["after"]["accuracy"] == metrics.accuracy


def test_reloaded_and_onnx_equal_what_was_trained(finished: tuple[Job, dict[str, Any]]) -> None:
    work, result = finished
    inputs = work.problem.task.data.test.inputs[:7]
    network = autoprune.load(work.run.path)
    session = onnxruntime.InferenceSession(work.run.path / "network.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    with torch.no_grad():
        assert np.abs(outputs - network(inputs).numpy()).max() <= 1e-4
    assert result["export_differences"]["reloaded"] == 0
    assert result["export_differences"]["onnx"] <= 1e-4


def test_the_choice_is_the_best_on_held_out_data(finished: tuple[Job, dict[str, Any]]) -> None:
    _, result = finished
    held_out = {name: n["held_out"]["kl"] for name, n in result["networks"].items() if name != "dense"}
    assert set(held_out) == {"searched", "uniform", "sensitivity"}
    assert held_out[result["chosen"]] == min(held_out.values())


def test_a_search_worse_than_its_baselines_is_not_what_is_returned(tmp_path: Path) -> None:
    def worst(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
        plans = [
            problem.structure.plan(problem.projector.project(rng.uniform(0.05, 1, len(problem.structure.groups))))
            for _ in range(10)
        ]
        return min(problem.objective.evaluate(plans), key=lambda outcome: outcome.reward).plan

    result = job(tmp_path / "run", task=tiny_task(), search=worst).execute()
    assert result["chosen"] in ("uniform", "sensitivity")


def test_baselines_that_nobody_asks_for_cost_nothing(tmp_path: Path) -> None:
    """The uniform plan alone needs no single-group curves."""
    work = job(tmp_path / "run", task=tiny_task(), compared_with=("uniform",))
    result = work.execute()
    assert set(result["networks"]) == {"dense", "searched", "uniform"}
    assert not (work.run.path / "curves.json").exists()
    assert result["evaluations"]["baselines"] == {"plans": 1, "whole": 1.0}
    assert result["failed"] == {}


def test_equal_plans_share_one_recovery(tmp_path: Path) -> None:
    result = job(tmp_path / "run", task=tiny_task(), search=partial(prior_plan.search, start="uniform")).execute()
    networks = result["networks"]
    assert networks["searched"]["plan"] == networks["uniform"]["plan"]
    assert networks["searched"]["after"] == networks["uniform"]["after"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "recover.jsonl").read_text().splitlines()]
    assert {line["plan"] for line in lines} == {"searched", "sensitivity"}


def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    result, again = (job(tmp_path / name, task=tiny_task()).execute() for name in ("first", "again"))
    job(tmp_path / "other", task=tiny_task(), seed=1).search_plan()
    measured = ("plan", "cost", "proxy", "held_out", "before", "after")
    for name, network in result["networks"].items():
        assert {key: again["networks"][name][key] for key in measured} == {key: network[key] for key in measured}
    first, same, other = (
        [line["kept"] for line in RunFolder(tmp_path / name).read_lines("history.jsonl") if line["phase"] == "search"]
        for name in ("first", "again", "other")
    )
    assert first == same != other


def test_a_killed_search_leaves_its_history(tmp_path: Path) -> None:
    def interrupted(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
        for _ in range(7):
            first_plan(problem, start="uniform")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "run", task=tiny_task(), search=interrupted).execute()
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize("name", ["dense", "flattened"])
def test_a_task_of_ones_own_goes_all_the_way(name: str, tmp_path: Path) -> None:
    work = job(tmp_path / "run", task=tiny_task(name), compared_with=("uniform",))
    result = work.execute()
    model, prepared_task = work.problem.task.model, work.problem
    with pytest.raises(ValueError, match="model="):
        autoprune.load(work.run.path)
    assert autoprune.load(work.run.path, model=model) is not model
    plan = PruningPlan.from_json(result["networks"]["searched"]["plan"])
    inputs = prepared_task.task.data.test.inputs
    with torch.no_grad(), masked(model, prepared_task.structure, plan, prepared_task.candidates.ranking):
        expected = model(inputs)
    small = shrink(model, prepared_task.structure, plan, prepared_task.candidates.ranking)
    assert (small(inputs) - expected).abs().max() <= 1e-4


def tabular_task(rows: Tensor, parts: tuple[int, ...]) -> Task:
    """Tables of few rows, as small or discrete data sets have them."""
    starts = [sum(parts[:index]) for index in range(len(parts))]
    roles = [Role(rows[s : s + n], (rows[s : s + n].sum(1) > 3).long()) for s, n in zip(starts, parts, strict=True)]
    torch.manual_seed(0)
    layers = (nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    return Task(nn.Sequential(*layers), rows[:1], Roles(*roles), name="table", budget="macs:0.5")


def test_forty_six_samples_are_enough(tmp_path: Path) -> None:
    """Fewer samples than a batch, a block or a race have: 20, 6, 10 and 10 of them."""
    rows = torch.rand(46, 6, generator=torch.Generator().manual_seed(0))
    task = tabular_task(rows, (20, 6, 10, 10))
    work = job(tmp_path / "run", task=task, problem=prepared(task, proxy_samples=None, batch_size="auto", race=Race()))
    result = work.execute()
    assert result["failed"] == {}
    cost = result["networks"][result["chosen"]]["cost"]["macs"]
    assert cost <= 0.5 * result["networks"]["dense"]["cost"]["macs"]
    assert np.isfinite(result["networks"][result["chosen"]]["after"]["accuracy"])
    autoprune.load(work.run.path, model=task.model)(rows)


def test_rows_that_occur_in_several_roles_are_refused_with_the_ways_out() -> None:
    """There are 64 different rows of six binary columns."""
    rows = torch.randint(0, 2, (600, 6), generator=torch.Generator().manual_seed(0)).float()
    with pytest.raises(ValueError, match=r"share \d+ samples.*ids=.*Roles.split"):
        tabular_task(rows, (300, 100, 100, 100))


def test_networks_are_quantized_after_recovery_and_what_is_on_the_disk_is_said(tmp_path: Path) -> None:
    quantize = partial(
        quantize_codebook,
        bits=3,
        convolution_bits=4,
        initialisation="linear",
        steps=0,
        batch_size=128,
        learning_rate=0.001,
    )
    work = job(tmp_path / "run", task=digits(), evaluations=3, compared_with=("uniform",), quantize=quantize)
    result = work.execute()
    assert result["failed"] == {}
    loaded = autoprune.load(work.run.path)
    assert all(len(layer.get_parameter("weight").unique()) <= 17 for layer in quantizable(loaded).values())
    files = result["networks"][result["chosen"]]["file_bytes"]
    assert files["apz"] < 0.4 * files["safetensors"]
    assert files["apz"] == save_apz(loaded, tmp_path / "small.apz", architecture=digits().architecture)
    work.run.write_json("run.json", {"task": "digits", "agent": "random"})
    note = on_the_disk(read_contents(work.run))
    assert note.startswith("On the disk: ")
    assert "smaller than the dense network's safetensors" in note
    assert note in render(read_contents(work.run)).replace("&#39;", "'")


def test_a_plans_bits_are_those_of_the_network_that_is_written(tmp_path: Path) -> None:
    """After recovery, which changes all weights but those that are gone."""
    task = tiny_task(prune=("weights",))
    problem = prepared(task, budget="encoded_bytes:0.4", bits=(2, 3, 4))
    trained = partial(quantize_codebook, bits=8, initialisation="linear", steps=3, batch_size=128, learning_rate=1e-3)
    for name, quantize in (("none", no_quantization), ("codebook", trained)):
        work = job(tmp_path / name, task=task, problem=problem, quantize=quantize, compared_with=("uniform",))
        result = work.execute()
        assert result["failed"] == {}
        network, chosen = autoprune.load(work.run.path, model=task.model), result["networks"][result["chosen"]]
        plan = PruningPlan.from_json(chosen["plan"])
        bits = bits_of(problem.structure, plan)
        for layer in bits:
            weight = network.get_submodule(layer).get_parameter("weight")
            values = weight[weight != 0].unique()
            assert 1 < len(values) <= 2 ** bits[layer]
            density = chosen["plan"][layer]["kept"] / chosen["plan"][layer]["units"]
            assert weight.count_nonzero() <= density * weight.numel()
        assert chosen["file_bytes"]["apz"] < chosen["file_bytes"]["safetensors"]
        work.run.write_json("run.json", {"task": "digits", "agent": "random"})
        said = on_the_disk(read_contents(work.run))
        assert f"Bits of the codes of weights: conv1 {bits.get('conv1', 'none')}" in said
        assert chosen["file_limit"]["bytes"] == chosen["file_bytes"]["apz"] <= problem.projector.budget.limit
        assert chosen["file_limit"]["meets"]
        assert "is met" in said
        for row in result["layers"]:
            assert row["parts"]["value_bits"] <= bits.get(row["name"], 32)
            assert row["kept"] == network.get_submodule(row["name"]).get_parameter("weight").count_nonzero()
        assert sum(row["bytes"] for row in result["layers"]) < chosen["file_bytes"]["apz"]
        page = render(read_contents(work.run))
        assert "On the disk, layer by layer" in page
        parts = result["parts_alone"]
        assert parts["both"]["apz"] < min(parts["pruning alone"]["apz"], parts["quantization alone"]["apz"])
        assert "What each part takes on the disk" in page
    with pytest.raises(ValueError, match=r"quantize=int8.*8 bits"):
        job(tmp_path / "int8", task=task, problem=problem, quantize=quantize_int8)
