"""Criteria on matrices that lose single weights, of tiny language models, and the ranking that they give."""

from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from autoprune.importance.activation import activation
from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.bn_scale import bn_scale
from autoprune.importance.criterion import CriterionInputs, Importance, rank
from autoprune.importance.fpgm import fpgm
from autoprune.importance.magnitude import magnitude
from autoprune.importance.random_scores import random
from autoprune.importance.sparse_gpt import sparse_gpt
from autoprune.importance.taylor import taylor
from autoprune.structure.code_bits import with_bits
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Comparison, Group, Layer, Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.task import Task, plain_forward
from experiments.configuration import composed, instantiate_part
from tests.language_models import TINY
from tests.models import PRUNABLE
from tests.tasks import scored_task, tiny_task

l1 = partial(magnitude, order=1, read=False)
wanda = partial(activation_norm, batch_size=5)
CRITERIA: dict[str, Importance] = {
    "magnitude": l1,
    "taylor": partial(taylor, batch_size=8),
    "wanda": wanda,
    "sparse_gpt": partial(sparse_gpt, damping=0.01),
    "random": random,
}
UP, DOWN = "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def task() -> Task:
    return TINY["llama"]()


def structure_of(task: Task, *kinds: str) -> Structure:
    return transformer_structure(task.model, task.example_input, prune=kinds)


def inputs_of(task: Task, layer: str) -> Tensor:
    """[rows, inputs]"""
    heard: list[Tensor] = []
    module = task.model.get_submodule(layer)
    hook = module.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].detach()))
    with torch.no_grad():
        task.forward(task.model, task.data.calibration.inputs)
    hook.remove()
    return heard[0].flatten(0, 1)


def weight_of(task: Task, layer: str) -> Tensor:
    return task.model.get_submodule(layer).get_parameter("weight").detach()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("kinds", [("weights", "blocks"), ("2:4",)])
@pytest.mark.parametrize("name", CRITERIA)
def test_every_weight_gets_a_score_and_a_place(name: str, kinds: tuple[str, ...], family: str) -> None:
    task = TINY[family]()
    structure = structure_of(task, *kinds)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    scores = scored_task(CRITERIA[name], task, structure)
    assert list(scores) == list(structure.names)
    ranking = rank(scores, structure, criterion=name)
    for group in structure.groups:
        assert scores[group.name].dtype == torch.float32
        assert (scores[group.name] >= 0).all()
        if not group.compared:
            assert ranking[group.name].tolist() == [0]
            continue
        assert scores[group.name].shape == weight_of(task, group.compared[0].layer).shape
        places = ranking[group.name].unflatten(1, (-1, group.compared[0].size))
        assert places.dtype == torch.int16
        assert torch.equal(places.sort(dim=2).values.int(), torch.arange(places.shape[2]).int().expand_as(places))
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in task.model.modules())


def test_magnitude_is_the_size_of_the_weight(task: Task) -> None:
    scores = scored_task(l1, task, structure_of(task, "weights"))
    assert torch.equal(scores[UP], weight_of(task, UP).abs())


def test_wanda_is_size_times_the_norm_of_the_input(task: Task) -> None:
    scores = scored_task(wanda, task, structure_of(task, "weights"))
    for layer in (UP, DOWN):
        rms = inputs_of(task, layer).square().mean(0).sqrt()
        torch.testing.assert_close(scores[layer], weight_of(task, layer).abs() * rms)


def test_taylor_is_gradient_times_weight_one_batch_at_a_time(task: Task) -> None:
    scores = scored_task(partial(taylor, batch_size=16), task, structure_of(task, "weights"))
    role, parameter = task.data.calibration, task.model.get_submodule(UP).get_parameter("weight")
    expected = torch.zeros_like(parameter)
    for rows, share in ((slice(0, 16), 16 / 24), (slice(16, 24), 8 / 24)):
        loss = task.loss(task.forward(task.model, role.inputs[rows]), role.targets[rows])
        (gradient,) = torch.autograd.grad(loss, [parameter])
        expected += (gradient * parameter).detach().abs() * share
    torch.testing.assert_close(scores[UP], expected.detach())


def test_sparse_gpt_is_what_is_lost_when_the_others_make_up_for_it(task: Task) -> None:
    """By least squares on the other inputs, with the damping as more rows."""
    scores = scored_task(partial(sparse_gpt, damping=0.05), task, structure_of(task, "weights"))
    x, w = inputs_of(task, DOWN).double(), weight_of(task, DOWN).double()
    penalty = (0.05 * x.square().mean()).sqrt() * torch.eye(x.shape[1]).double()
    rows = torch.cat([x / len(x) ** 0.5, penalty])
    for j in (0, 17, x.shape[1] - 1):
        others = [i for i in range(x.shape[1]) if i != j]
        gone = rows[:, j : j + 1] @ w[:, j][None]
        left = gone - rows[:, others] @ torch.linalg.lstsq(rows[:, others], gone).solution
        torch.testing.assert_close(scores[DOWN][:, j].double(), left.square().sum(0), rtol=1e-4, atol=1e-9)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([1, 3, 1000]))
def test_a_place_is_the_number_of_better_ones(outputs: int, blocks: int, size: int, seed: int, kinds: int) -> None:
    """Of those that score the same, the earlier one is better."""
    scores = torch.randint(kinds, (outputs, blocks * size), generator=torch.Generator().manual_seed(seed)).float()
    places = rank({"m": scores}, matrix(outputs, blocks * size, size), criterion="l1")["m"]
    for row in range(outputs):
        for column in range(blocks * size):
            start = column // size * size
            compared, own = scores[row, start : start + size].tolist(), scores[row, column].item()
            better = sum(s > own for s in compared) + sum(s == own for s in compared[: column - start])
            assert places[row, column] == better


def matrix(outputs: int, inputs: int, size: int) -> Structure:
    geometry = Layer("m", "linear", outputs, inputs, 1, 1, 1, False, False)
    group = Group("m", "weight", size, (), tuple(range(1, size + 1)), compared=(Comparison("m", size),))
    return Structure((group,), (geometry,))


def test_broken_and_misshapen_scores_are_named() -> None:
    scores = torch.zeros(3, 8)
    with pytest.raises(ValueError, match=r"wanda.*'m'.*3 × 8 weights"):
        rank({"m": torch.zeros(8)}, matrix(3, 8, 4), criterion="wanda")
    scores[1, 5] = scores[2, 0] = torch.nan
    message = r"wanda scores 2 of the 3 × 8 weights of group 'm' NaN or infinite .the first is weight of m \(1, 5\)"
    with pytest.raises(ValueError, match=message):
        rank({"m": scores}, matrix(3, 8, 4), criterion="wanda")


def test_more_weights_than_a_place_can_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"compares 32768 weights with each other, more than the 32767"):
        rank({"m": torch.zeros(1, 32768)}, matrix(1, 32768, 32768), criterion="l1")


@pytest.mark.parametrize(
    ("name", "criterion"), [("activation", partial(activation, order=1, batch_size=8)), ("fpgm", fpgm)]
)
def test_criteria_of_units_refuse_single_weights(name: str, criterion: Importance, task: Task) -> None:
    with pytest.raises(ValueError, match=rf"{name} cannot.*21 groups.*use wanda"):
        scored_task(criterion, task, structure_of(task, "weights"))


def test_bn_scale_says_that_a_transformer_has_none(task: Task) -> None:
    with pytest.raises(ValueError, match=r"bn_scale.*BatchNorm"):
        scored_task(partial(bn_scale, otherwise=None), task, structure_of(task, "weights"))
    scores = scored_task(partial(bn_scale, otherwise=l1), task, structure_of(task, "weights"))
    assert torch.equal(scores[UP], weight_of(task, UP).abs())


def test_sparse_gpt_refuses_whole_units(task: Task) -> None:
    with pytest.raises(ValueError, match=r"6 groups.*\(the.*'model.layers.0.self_attn'\)"):
        scored_task(CRITERIA["sparse_gpt"], task, structure_of(task, "heads", "neurons"))


def test_a_weight_that_reads_nothing_goes_first(task: Task) -> None:
    task = TINY["llama"]()
    with torch.no_grad():
        task.model.get_submodule("model.layers.1.post_attention_layernorm").get_parameter("weight")[7] = 0
    for name in ("wanda", "taylor", "sparse_gpt"):
        structure = structure_of(task, "weights")
        places = rank(scored_task(CRITERIA[name], task, structure), structure, criterion=name)[UP]
        assert (places[:, 7] == places.shape[1] - 1).all(), name


def test_the_yaml_is_the_criterion(task: Task) -> None:
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf" / "importance"), version_base=None):
        criterion = instantiate(compose("sparse_gpt"), _convert_="all")
    structure = structure_of(task, "weights")
    expected = scored_task(CRITERIA["sparse_gpt"], task, structure)
    assert all(torch.equal(scores, expected[name]) for name, scores in scored_task(criterion, task, structure).items())


# Criteria score single weights of convolutions as those of linear layers, and bits in their order
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
