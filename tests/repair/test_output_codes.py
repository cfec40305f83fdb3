"""Codes by least squares change outputs less than the nearest values do, keep zeros, and use the same values."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.importance.gram import inverse_factor
from autoprune.quantize.shared_weights import quantizable, shared_values
from autoprune.repair.output_codes import choose_codes, codes_by_outputs
from autoprune.task.task import Task
from tests.tasks import tiny_task


def sparse_and_shared(task: Task, bits: int) -> tuple[nn.Module, nn.Module]:
    """The task's network with half of its weights gone, and that with few values."""
    pruned, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in quantizable(pruned).values():
            weight = layer.get_parameter("weight")
            weight.mul_(torch.rand(weight.shape, generator=generator) < 0.5)
        quantized = copy.deepcopy(pruned)
        for layer in quantizable(quantized).values():
            weight = layer.get_parameter("weight")
            weight.copy_(shared_values(weight, bits))
    return pruned, quantized


def test_outputs_are_nearer_than_by_nearest_values() -> None:
    """On inputs that depend on one another, as a network's do."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2000, 6, generator=generator) @ torch.randn(6, 40, generator=generator)
    inputs = (inputs + 0.1 * torch.randn(2000, 40, generator=generator)).double()
    weight = torch.randn(30, 40, generator=generator)
    kept = torch.rand(30, 40, generator=generator) < 0.5
    weight = weight * kept
    nearest = shared_values(weight, 3)
    values = nearest[nearest != 0].unique()
    factor = inverse_factor(inputs.T @ inputs / len(inputs), damping=1e-3)
    chosen = choose_codes(weight, kept, values, factor)
    assert set(chosen.unique().tolist()) <= {0.0, *values.tolist()}
    assert torch.equal(chosen[~kept], torch.zeros_like(chosen[~kept]))
    errors = [float((inputs @ (weight - each).double().T).square().mean()) for each in (nearest, chosen)]
    assert errors[1] < 0.5 * errors[0]
    independent = inverse_factor(torch.eye(40, dtype=torch.float64), damping=1e-9)
    by_itself = choose_codes(weight, kept, values, independent)  # nothing to make up for
    assert torch.equal(by_itself[kept], nearest[kept])


@pytest.mark.parametrize("name", ["residual", "grouped", "flattened"])
def test_a_network_keeps_its_zeros_and_values(name: str) -> None:
    task = tiny_task(name)
    pruned, quantized = sparse_and_shared(task, 2)
    before = copy.deepcopy(quantized.state_dict())
    assigned = codes_by_outputs(quantized, pruned, task)
    for layer, module in quantizable(assigned).items():
        weight, nearest = module.get_parameter("weight"), quantized.get_submodule(layer).get_parameter("weight")
        assert torch.equal(weight == 0, nearest == 0)
        assert np.isin(weight.detach().unique().numpy(), nearest.detach().unique().numpy()).all()
    assert all(torch.equal(value, before[key]) for key, value in quantized.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in assigned.state_dict().items())
