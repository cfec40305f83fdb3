"""SmolLM2-135M's FFNs on the disk: fixed and searched bits at equal bytes, before and after centroids are trained."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.coding.apz_file import ApzFile
from autoprune.deep_compression import FP32
from autoprune.evaluation.judge import Judge
from autoprune.export.apz import load_apz, save_apz
from autoprune.plan import PruningPlan
from autoprune.schedule.decision import PruningGoal
from autoprune.schedule.engine import train_pruned
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedules import cubic
from autoprune.seeding import numpy_rng, torch_generator
from autoprune.structure.code_bits import bits_of
from autoprune.structure.groups import Structure
from autoprune.task.task import Task
from experiments.configuration import composed, instantiate_part, prepared_by

BUDGET = 0.465  # of the dense network's file: what is not in FFNs takes 0.41
BLOCKS = 30
KEPT = [f"model.layers.{block}.self_attn.{name}_proj" for block in range(BLOCKS) for name in "qkvo"]
GRADUALLY = "pruned gradually"
METHODS = {
    "fixed bits": ("agent=deep_compression", "evaluations=3"),
    "searched": ("agent=evolution", "evaluations=40"),
    GRADUALLY: (),
    "fixed bits, 120 steps": ("agent=deep_compression", "evaluations=3", "quantize.steps=120"),  # as many as GRADUALLY
}
DENSITY, BITS, STEPS = 0.5, 4, 60  # of what is pruned gradually: of FFNs' weights, of their codes, of training
SETTINGS = (
    "experiment=deep_compression", "task=smollm2", f"task.keep=[{','.join(KEPT)}]", f"budget=encoded_bytes:{BUDGET}",
    "task.sizes={tokens: 64, train: 512, calibration: 32, search: 24, test: 64}", "importance=wanda",
    "recover=none", "quantize.steps=60", "quantize.batch_size=8", "quantize.learning_rate=0.0001",
    "evaluation.store=null",
)  # fmt: skip


def language_cell(method: str, *, seed: int) -> dict[str, Any]:
    """Returns what one method's plan comes to as a file, and its perplexity on texts that no role has read.

    Args:
        method: One of METHODS.
        seed: Of the search and of training.
    """
    settings = composed(*SETTINGS, *METHODS[method], f"seed={seed}")
    problem = prepared_by(settings)
    task, structure, limit = problem.task, problem.structure, problem.projector.budget.limit
    if method == GRADUALLY:
        pruned = _pruned_gradually(task, structure, seed=seed)
        plan = _nearest_plan(pruned, structure)
    else:
        with tempfile.TemporaryDirectory() as folder:
            limited = problem.limited(settings["evaluations"], folder=Path(folder), seed=seed)
            plan = instantiate_part(settings, "agent")(limited, rng=numpy_rng(seed, "search"))
        pruned = problem.pruned(plan)
    problem.close()
    test = Judge(task, task.data.test)

    def filed(network: nn.Module, **quantize: Any) -> dict[str, Any]:
        """The network quantized and read back from its file; of FFNs, what is kept and what they take in the file."""
        coded: nn.Module = instantiate_part(settings, "quantize")(
            network, task, generator=torch_generator(seed, "quantize"), layer_bits=bits_of(structure, plan), **quantize
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.apz"
            size = save_apz(coded, path, architecture=task.architecture)
            parts = ApzFile.parse(path.read_bytes()).tensors
            again = load_apz(path)
        weights = [f"{layer}.weight" for layer in _matrices(structure)]
        judged = test(again)
        return {
            "bytes": size, "kl": judged.kl, "perplexity": float(np.exp(judged.loss)),
            "ffn_bytes": sum(len(parts[name].body) for name in weights),
            "ffn_weights": sum(again.get_parameter(name).numel() for name in weights),
            "ffn_kept": sum(int(again.get_parameter(name).count_nonzero()) for name in weights),
            "same_bits": all(torch.equal(a, b) for a, b in zip(coded.parameters(), again.parameters(), strict=True)),
        }  # fmt: skip

    return {
        "method": method, "seed": seed,
        "predicted": float(problem.costs["encoded_bytes"](np.array(plan.kept))), "limit": limit,
        "dense_bytes": FP32 * sum(parameter.numel() for parameter in task.model.parameters()),
        "dense_perplexity": float(np.exp(test(task.model).loss)),
        "post_training": filed(pruned, steps=0), "centroids_trained": filed(pruned),
    }  # fmt: skip


def _pruned_gradually(task: Task, structure: Structure, *, seed: int) -> nn.Module:
    """FFNs lose the smallest of their weights while the model is trained; all else stays dense."""
    layers = {name: module for name, module in task.model.named_modules() if isinstance(module, nn.Linear)}
    ffn = set(_matrices(structure))
    total = sum(layer.weight.numel() for layer in layers.values())
    removed = (1 - DENSITY) * sum(layers[name].weight.numel() for name in ffn)
    goal = PruningGoal(density=1 - removed / total, steps=STEPS, counted="steps", keep=frozenset(layers.keys() - ffn))
    recipe = TrainingRecipe(optimizer="adamw", learning_rate=1e-4, weight_decay=0.0, batch_size=8)
    return train_pruned(task, cubic(start=0.02, end=0.6, decisions=20), goal, recipe=recipe, seed=seed).network


def _nearest_plan(network: nn.Module, structure: Structure) -> PruningPlan:
    """The plan with each matrix's density in the network, and codes of BITS, which predicts the file's size."""
    kept = []
    for group in structure.groups:
        density = np.mean([
            float(network.get_submodule(matrix.layer).get_parameter("weight").ne(0).float().mean())
            for matrix in group.compared
        ]) if group.compared else None  # fmt: skip
        kept.append(BITS if density is None else max(1, round(density * group.units)))
    return structure.plan(np.array(kept))


def _matrices(structure: Structure) -> list[str]:
    return [matrix.layer for group in structure.groups for matrix in group.compared]
