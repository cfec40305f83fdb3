"""Networks and data may lie on another device than the processor, and every stage of a search then computes there.

No accelerator is needed for that: a simulated one refuses what a real one would. What runs on a real one is skipped
where there is none.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from autoprune import Problem, ProblemSpec, Task
from autoprune.cli import parts
from autoprune.cli.parts import task_of
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.export.network import load_network, save_network
from autoprune.importance.activation_norm import activation_norm
from autoprune.problem.spec import StructureSettings
from autoprune.recover.hidden_states import blocks_of
from autoprune.repair.repair import Repair
from autoprune.repair.replace_me import ReplaceMe
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.placement import checked_device
from autoprune.task.shipped import digits
from autoprune.task.task import outputs_of
from tests.composition import composed
from tests.language_models import causal_task, encoder_task
from tests.simulated_device import simulated_device

WANDA = partial(activation_norm, batch_size=8)
CASES: dict[str, tuple[Callable[[], Task], dict[str, Any]]] = {
    "heads and neurons": (partial(causal_task, "llama"), {}),
    "single weights": (
        partial(causal_task, "gpt2"),
        {
            "importance": WANDA,
            "repair": Repair(batch_norm=0),
            "structure": StructureSettings(prune=("weights",), round_to=8),
        },
    ),
    "depth": (
        partial(causal_task, "llama"),
        {
            "repair": Repair(batch_norm=0, replace_me=ReplaceMe(1.0, 256)),
            "structure": StructureSettings(prune=("attention", "ffn")),
        },
    ),
    "encoder": (partial(encoder_task, "bert"), {}),
    "convolutions": (digits, {}),
}


def judged(task: Task, settings: dict[str, Any]) -> tuple[list[float], torch.Tensor]:
    """The scores of some plans, and what the last one's network answers on calibration samples."""
    evaluation = EvaluationSettings(store=None, batch_size=10, precision="fp32", proxy_samples=20)
    problem = Problem.prepare(task, ProblemSpec(budget="params:0.75", evaluation=evaluation, **settings))
    rng, groups = np.random.default_rng(0), len(problem.structure.groups)
    kept = [problem.projector.project(rng.uniform(0.2, 1, groups)) for _ in range(3)]
    plans = [problem.structure.plan(each) for each in kept]
    scores = [outcome.score for outcome in problem.objective.uncharged.evaluate(plans, whole=True)]
    with torch.no_grad():
        return scores, task.forward(problem.pruned(plans[-1]), task.data.calibration.inputs[:4])


def slow_but(name: str) -> list[Any]:
    return [pytest.param(case, marks=[] if case == name else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", slow_but("convolutions"))
def test_plans_are_worth_the_same_on_another_device(case: str) -> None:
    make, settings = CASES[case]
    scores, answers = judged(make(), settings)
    with simulated_device() as device:
        task = make().on(device)
        getattr(task.model, "tie_weights", lambda: None)()  # which real devices keep tied
        scores_there, answers_there = judged(task, settings)
        assert {p.device for p in task.model.parameters()} == {task.device} == {answers_there.device} == {device}
        assert scores_there == pytest.approx(scores, rel=1e-4, abs=1e-6)
        assert torch.allclose(answers_there.cpu(), answers, atol=1e-4)


def test_the_simulated_device_refuses_what_a_real_one_does() -> None:
    with simulated_device() as device:
        there = torch.arange(6.0).to(device)
        assert (there + 1).sum().item() == 21
        assert there[torch.tensor([1, 2])].device == device  # an index may lie on the processor
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(6)
        with pytest.raises(RuntimeError, match="same device"):
            there.index_select(0, torch.tensor([1]))
        with pytest.raises(RuntimeError):
            there.numpy()


def test_what_is_recovered_and_saved_there_is_what_is_loaded_here(tmp_path: Path) -> None:
    recover = instantiate(composed("recover=fine_tune", "recover.steps=3", "recover.bf16=false")["recover"])
    networks: list[torch.nn.Module] = []
    for make in (digits, lambda: digits().on("cuda")):
        with simulated_device():
            task = make()
            trained = recover(task.model, task, teacher=None, generator=torch.Generator().manual_seed(0), on_step=None)
            save_network(trained, tmp_path / str(len(networks)), architecture=task.architecture)
        networks.append(load_network(tmp_path / str(len(networks))))
    first, second = (outputs_of(network, digits().data.test.inputs[:8]) for network in networks)
    assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.version.cuda is None:
        with pytest.raises(ValueError, match=rf"task\.device={name}.*CUDA.*CUDA"):
            digits().on(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    with pytest.raises(ValueError, match=rf"task\.device={name}.*CUDA"):
        checked_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert checked_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"task\.device=cuda:1: PyTorch.*1 CUDA.*cuda:0.*cuda:0"):
        checked_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", "auto", "mps", "meta"])
def test_what_is_no_device_is_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=rf"task\.device={name}.*cuda:1"):
        checked_device(name)


def test_a_task_of_the_command_is_placed_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"_target_": "autoprune.task.shipped.digits", "keep": [], "device": "cpu"}
    assert task_of(settings, None).device == torch.device("cpu")
    monkeypatch.setattr(parts, "instantiate_part", lambda *_: pytest.fail("loaded before the device was looked at"))
    with pytest.raises(ValueError, match=r"task\.device=cuda:7"):
        task_of({**settings, "device": "cuda:7"}, None)


def test_bf16_stays_bf16_from_end_to_end(tmp_path: Path) -> None:
    single = causal_task("llama")
    half = replace(causal_task("llama"), dtype="bfloat16")
    dtypes = {name: p.dtype for name, p in half.model.named_parameters()}
    assert set(dtypes.values()) == {torch.bfloat16}
    assert {b.dtype for b in half.model.buffers()} == {torch.float32}  # rotary frequencies
    assert half.describe().endswith("its float32 weights are taken as bfloat16")
    evaluation = EvaluationSettings(store=None, batch_size=10, proxy_samples=20)
    problem = Problem.prepare(half, ProblemSpec(budget="params:0.75", evaluation=evaluation))
    assert problem.measured["precision"] == "bf16"
    network = problem.pruned(problem.objective.evaluate([problem.structure.dense])[0].plan)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    save_network(network, tmp_path, architecture=half.architecture)
    assert {p.dtype for p in load_network(tmp_path).parameters()} == {torch.bfloat16}
    samples = half.data.test.inputs
    near, exact = (outputs_of(task.model, samples, task.forward) for task in (half, single))
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.1 * exact.abs().max()


def test_bf16_of_a_network_that_reads_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.dtype=bfloat16.*precision=bf16"):
        replace(digits(), dtype="bfloat16")


def placed_by_accelerate(task: Task, **settings: Any) -> Task:
    """Every part of the network has the hooks that bring activations to where it lies, which is the processor."""
    model = copy.deepcopy(task.model)
    parts_of = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", *blocks_of(model)]
    dispatch = accelerate.dispatch_model(model, dict.fromkeys(parts_of, "cpu"), main_device="cpu", force_hooks=True)
    assert hasattr(dispatch.model.layers[0], "_hf_hook")
    return replace(task, model=dispatch, **settings)


@pytest.mark.parametrize("case", ["heads and neurons", "depth"])
def test_a_model_that_accelerate_has_placed_is_pruned_as_any(case: str, tmp_path: Path) -> None:
    make, settings = CASES[case]
    plain, placed = make(), placed_by_accelerate(make())
    scores, answers = judged(placed, settings)
    expected = judged(plain, settings)
    assert scores == expected[0]
    assert torch.equal(answers, expected[1])
    networks = []
    for task in (plain, placed):
        recover = instantiate(composed("recover=block_distillation", "recover.block_steps=1", "recover.steps=1",
                                       "recover.bf16=false")["recover"])  # fmt: skip
        structure = find_structure(task.model, task.example_input, prune=("neurons",))
        ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        narrow = shrink(task.model, structure, structure.plan(np.array(structure.units) // 2), ranking)
        generator = torch.Generator().manual_seed(0)
        networks.append(recover(narrow, task, teacher=task.model, generator=generator, on_step=None))
    save_network(networks[1], tmp_path, architecture=placed.architecture)
    networks.append(load_network(tmp_path))
    first, *others = (outputs_of(network, plain.data.test.inputs, plain.forward) for network in networks)
    assert all(torch.equal(first, other) for other in others)


def test_weights_that_are_not_in_memory_are_a_sentence() -> None:
    task = causal_task("llama")
    offloaded = accelerate.cpu_offload(copy.deepcopy(task.model), execution_device=torch.device("cpu"))
    assert torch.equal(*(outputs_of(model, task.data.test.inputs, task.forward) for model in (task.model, offloaded)))
    with pytest.raises(ValueError, match=r"not in memory.*device_map"):
        replace(task, model=offloaded)
    with torch.device("meta"):
        unloaded = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"2 parameters of the Linear, such as weight"):
        replace(digits(), model=unloaded)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch sees none")
@pytest.mark.parametrize("case", CASES)
def test_plans_are_worth_the_same_on_an_accelerator(case: str) -> None:
    make, settings = CASES[case]
    scores, answers = judged(make().on("cuda"), settings)
    assert answers.device.type == "cuda"
    assert scores == pytest.approx(judged(make(), settings)[0], rel=0.05, abs=1e-3)
