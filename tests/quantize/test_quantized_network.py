"""Quantized networks: few values, zeros stay, training the centroids helps, and files know the form."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from autoprune.coding.coded_tensor import parts_of
from autoprune.evaluation.judge import Judge
from autoprune.export.apz import bits_of
from autoprune.quantize.quantized_network import no_quantization, quantize_codebook, quantize_int8
from autoprune.quantize.shared_weights import quantizable
from autoprune.task.shipped import digits
from autoprune.task.task import Task

shared = partial(quantize_codebook, initialisation="linear", steps=0, batch_size=128, learning_rate=0.001)


@pytest.fixture(scope="module")
def task() -> Task:
    return digits()


def sparse(task: Task) -> nn.Module:
    network = copy.deepcopy(task.model)
    with torch.no_grad():
        for layer in quantizable(network).values():
            weight = layer.weight
            weight.mul_(weight.abs() > weight.abs().quantile(0.4))  # type: ignore[operator, union-attr]
    return network


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("steps", [0, 3])
def test_every_layer_has_few_values_and_keeps_its_zeros(task: Task, steps: int) -> None:
    network = sparse(task)
    before = copy.deepcopy(network.state_dict())
    quantized = shared(network, task, bits=3, convolution_bits=4, steps=steps, generator=generator())
    for name, layer in quantizable(quantized).items():
        weight, old = layer.get_parameter("weight"), before[f"{name}.weight"]
        assert torch.equal(weight == 0, old == 0)
        assert len(weight[weight != 0].unique()) <= (8 if isinstance(layer, nn.Linear) else 16)
        assert torch.equal(weight, weight.half().float())
        parts = parts_of(bits_of(weight.detach()))
        assert parts.value_bits <= 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert quantized.state_dict().keys() == before.keys()


def test_gradients_of_weights_that_share_a_centroid_add_up(task: Task) -> None:
    """One step of plain gradient descent on a linear layer, against the sums by hand."""
    from autoprune.quantize.quantized_network import _share

    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 1.1], [3.0, 3.1, 0.0]]))
    _share(layer, 1, "linear", None)  # type: ignore[arg-type]
    inputs = torch.tensor([[1.0, 10.0, 100.0]])
    layer(inputs).sum().backward()
    centroids = layer.parametrizations.weight.original  # type: ignore[union-attr]
    assert centroids.tolist() == pytest.approx([1.05, 3.05])
    assert centroids.grad.tolist() == [101.0, 11.0]


def test_training_centroids_helps_and_a_bit_is_not_enough(task: Task) -> None:
    network, judge = sparse(task), Judge(task, task.data.search)

    def loss(bits: int, steps: int) -> float:
        quantized = shared(network, task, bits=bits, steps=steps, generator=generator())
        return float(judge(quantized).loss)

    coarse, trained, fine = loss(2, 0), loss(2, 60), loss(6, 0)
    assert trained < 0.8 * coarse
    assert fine < coarse


def test_a_step_reads_as_many_samples_as_batch_size_says(task: Task) -> None:
    numbers = []

    def counted(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        numbers.append(len(inputs))
        return network(inputs)

    shared(task.model, replace(task, forward=counted), bits=4, steps=2, batch_size=5, generator=generator())
    assert numbers == [5, 5]


def test_bits_may_be_of_single_layers(task: Task) -> None:
    first, second, *_ = quantizable(task.model)
    quantized = shared(task.model, task, bits=8, layer_bits={first: 2}, generator=generator())
    assert len(quantizable(quantized)[first].get_parameter("weight").unique()) <= 4
    assert len(quantizable(quantized)[second].get_parameter("weight").unique()) > 16
    with pytest.raises(ValueError, match="layer_bits names"):
        shared(task.model, task, bits=8, layer_bits={"nowhere": 2}, generator=generator())
    with pytest.raises(ValueError, match="1 to 8 bits, got 11"):
        shared(task.model, task, bits=11, generator=generator())


def test_int8_has_a_scale_for_each_output_which_files_know(task: Task) -> None:
    network = sparse(task)
    quantized = quantize_int8(network, task, generator=generator())
    for name, layer in quantizable(quantized).items():
        weight, old = layer.get_parameter("weight").detach(), network.get_parameter(f"{name}.weight").detach()
        step = old.abs().flatten(1).amax(dim=1) / 127
        assert ((weight - old).abs().flatten(1) <= 0.52 * step[:, None] + 1e-9).all()
        assert parts_of(bits_of(weight)).value_bits == 8
    judge = Judge(task, task.data.search)
    assert judge(quantized).accuracy == pytest.approx(judge(network).accuracy, abs=0.02)


def test_none_leaves_everything_as_it_is(task: Task) -> None:
    same = no_quantization(task.model, task, generator=generator())
    assert same is not task.model
    assert all(torch.equal(tensor, task.model.state_dict()[name]) for name, tensor in same.state_dict().items())
