"""Searched densities and bits against the paper's fixed bits, at equal bytes of the written file."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.export.byte_limit import within_bytes
from autoprune.plan import PruningPlan
from autoprune.seeding import numpy_rng, torch_generator
from autoprune.structure.code_bits import bits_of
from autoprune.task.task import Task
from experiments.configuration import composed, instantiate_part, prepared_by

BUDGET = 0.025  # of the dense network's file
EVALUATIONS = 100
METHODS = {"searched": "agent=evolution", "fixed bits": "agent=deep_compression"}
SETTINGS = ("experiment=deep_compression", "evaluation.store=null", "evaluation.batch_size=250")


def pair_cell(task: Task, method: str, *, seed: int) -> dict[str, Any]:
    """Returns what one method's plan comes to, before and after the same retraining, in files within the same bytes.

    Args:
        task: Of the dense network.
        method: One of METHODS.
        seed: Of the search and of training.
    """
    settings = composed(*SETTINGS, METHODS[method], f"budget=encoded_bytes:{BUDGET}", f"seed={seed}")
    problem = prepared_by(settings, task)
    with tempfile.TemporaryDirectory() as folder:
        limited = problem.limited(EVALUATIONS, folder=Path(folder), seed=seed)
        plan: PruningPlan = instantiate_part(settings, "agent")(limited, rng=numpy_rng(seed, "search"))
    structure, pruned, test = problem.structure, problem.pruned(plan), Judge(task, task.data.test)
    trained: nn.Module = instantiate_part(settings, "recover")(
        pruned, task, teacher=task.model, generator=torch_generator(seed, "recover"), on_step=lambda *_: None
    )
    coded: nn.Module = instantiate_part(settings, "quantize")(
        trained, task, generator=torch_generator(seed, "quantize"), layer_bits=bits_of(structure, plan)
    )
    layers = [matrix.layer for group in structure.groups for matrix in group.compared]
    magnitudes = {f"{layer}.weight": trained.get_submodule(layer).get_parameter("weight") for layer in layers}
    limit = problem.projector.budget.limit
    before = within_bytes(coded, float("inf"), architecture=task.architecture, magnitudes=magnitudes).bytes
    final = within_bytes(coded, limit, architecture=task.architecture, magnitudes=magnitudes)
    problem.close()
    return {
        "network": task.name, "seed": seed, "method": method, "plan": plan.as_json(),
        "predicted": float(problem.costs["encoded_bytes"](np.array(plan.kept))), "before_limit": before,
        **final.as_json(),
        "dense": float(test(task.model).accuracy),
        "post_training": {"accuracy": float(test(pruned).accuracy), "kl": float(test(pruned).kl)},
        "recovered": float(test(final.network).accuracy),
    }  # fmt: skip
