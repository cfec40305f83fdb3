"""Criteria score single weights of convolutions as those of linear layers, and bits in their order."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.criterion import CriterionInputs, rank
from autoprune.structure.code_bits import with_bits
from autoprune.structure.graph import find_structure
from autoprune.task.task import plain_forward
from experiments.configuration import composed, instantiate_part
from tests.models import PRUNABLE
from tests.tasks import scored_task, tiny_task


@pytest.mark.parametrize("name", ["default", "l1", "random", "taylor", "wanda", "activation_norm"])
@pytest.mark.parametrize("network", ["grouped", "separable"])
def test_every_weight_has_a_score(name: str, network: str) -> None:
    task = tiny_task(network)
    structure = find_structure(task.model, task.example_input, prune=("weights",))
    structure = with_bits(structure, task.model, (2, 4))
    criterion = instantiate_part(composed(f"importance={name}"), "importance")
    scores = scored_task(criterion, task, structure)
    ranking = rank(scores, structure, criterion=name)
    for group in structure.groups:
        if group.coded:
            assert ranking[group.name].tolist() == list(range(32))
        else:
            weight = task.model.get_submodule(group.name).get_parameter("weight")
            assert scores[group.name].shape == weight.flatten(1).shape


def test_activation_norm_takes_the_inputs_that_a_weight_reads() -> None:
    """By hand, at a grouped convolution: output o of group g reads channels g · inputs …"""
    model, inputs = PRUNABLE["grouped"].model(), PRUNABLE["grouped"].inputs(6)
    role = tiny_task("grouped").data.calibration
    structure = find_structure(model, inputs[:1], prune=("weights",))
    name, layer = next((n, m) for n, m in model.named_modules() if getattr(m, "groups", 1) > 1)
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    with torch.no_grad():
        model(role.inputs)
    handle.remove()
    rms = seen[0].square().mean(dim=(0, 2, 3)).sqrt()
    given = CriterionInputs(model, structure, role, cross_entropy, plain_forward, torch.Generator())
    scores = activation_norm(given, batch_size=64)
    weight, per_group = layer.get_parameter("weight"), layer.get_parameter("weight").shape[1]
    outputs = len(weight) // layer.groups  # type: ignore[operator]
    read = [rms[index // outputs * per_group :][:per_group, None, None] for index in range(len(weight))]
    expected = torch.stack([row.abs() * values for row, values in zip(weight, read, strict=True)])
    assert torch.allclose(scores[name], expected.flatten(1), rtol=1e-4)
