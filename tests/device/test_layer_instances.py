from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.cost.recording import record
from autoprune.device.fused_layer import Call, FusedLayer
from autoprune.device.layer_instances import LayerInstance, instances_of
from autoprune.device.widths import widths_of
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task import networks
from autoprune.task.samples import repeated
from autoprune.task.task import plain_forward
from tests.models import PRUNABLE, Network, random_plan, random_ranking

LAYER_NORM_NAME = "native_layer_norm"


def layer_instances(network: nn.Module, example_input: Tensor) -> tuple[list[LayerInstance], list[str]]:
    return instances_of(record(network, repeated(example_input, 1), forward=plain_forward))


def described(network: nn.Module, shape: tuple[int, ...]) -> list[str]:
    return [f"{c.layer} ({c.inputs}, {c.outputs})" for c in layer_instances(network, torch.randn(1, *shape))[0]]


def test_what_follows_a_layer_is_fused_to_it() -> None:
    assert described(PRUNABLE["residual"].model(), (3, 8, 8)) == [
        "conv 3×3 at 8×8 + norm + relu (3, 8)",
        "conv 3×3 at 8×8 + norm + relu (8, 6)",
        "conv 3×3 at 8×8 + norm + add + relu (6, 8)",
        "mean at 8×8 (8, 8)",
        "linear at 1 (8, 5)",
    ]


def test_an_addition_belongs_to_the_branch_that_ran_last() -> None:
    layers = described(networks.resnet20().eval(), (1, 28, 28))
    assert Counter(layers)["conv 1×1 / 2 at 28×28 + norm + add + relu (16, 32)"] == 1
    assert sum(" + add" in layer for layer in layers) == 9


def test_depthwise_and_grouped_convolutions_are_kinds_of_their_own() -> None:
    assert "depthwise 3×3 / 2 at 8×8 + norm + hardtanh (8, 8)" in described(PRUNABLE["separable"].model(), (3, 8, 8))
    grouped = [
        c for c in layer_instances(PRUNABLE["grouped"].model(), torch.randn(1, 3, 8, 8))[0] if c.layer.groups == 4
    ]
    assert [(c.inputs, c.outputs) for c in grouped] == [(3, 4)]  # 12 and 16 channels, in multiples of 4


def test_what_is_in_no_piece_is_named() -> None:
    _, left_out = layer_instances(PRUNABLE["layer_norm"].model(), torch.randn(1, 6))
    assert left_out == [LAYER_NORM_NAME]
    assert layer_instances(PRUNABLE["dense"].model(), torch.randn(1, 3, 8, 8))[1].count("cat") == 2


def test_every_piece_runs_alone_and_has_the_output_that_it_says(network: Network) -> None:
    for found in layer_instances(network.model(), network.inputs())[0]:
        layer, groups = found.layer, found.layer.groups
        for inputs, outputs in ((found.inputs, found.outputs), (1, 1)):
            module = layer.module(inputs * groups, outputs * groups)
            answer = module(*layer.example(inputs * groups, outputs * groups, batch=2))
            if layer.kind in ("conv", "depthwise"):
                assert answer.shape == (2, outputs * groups, *layer.output_size)
            elif layer.kind == "linear":
                assert answer.shape == (2 * layer.size[0], outputs)


def test_pieces_compute_what_the_network_does() -> None:
    """The layers of a chain, given its weights one after the other, are the network."""
    network, inputs = PRUNABLE["plain"].model(), torch.randn(1, 3, 8, 8)
    answer = inputs
    weights = [m for m in network if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    for found in layer_instances(network, inputs)[0]:
        module = found.layer.module(found.inputs, found.outputs)
        for own in (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)):
            own.load_state_dict(weights.pop(0).state_dict())
        answer = module(answer.flatten(1) if found.layer.kind == "linear" else answer)
    assert torch.allclose(answer, network(inputs), atol=1e-6)


@given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("name", sorted(PRUNABLE))
def test_widths_are_those_of_the_shrunk_network(name: str, seed: int) -> None:
    network = PRUNABLE[name]
    structure, plan = network.structure(), random_plan(network.structure(), seed=seed)
    widths = widths_by(name)
    inputs, outputs = widths.of(np.array(plan.kept))
    small = shrink(network.model(), structure, plan, random_ranking(structure, seed=0))
    expected = Counter(
        (c.layer.size, c.inputs * c.layer.groups, c.outputs * c.layer.groups) for c in _cuts(small, name)
    )
    found = Counter[tuple[tuple[int, ...], int, int]]()
    for place, index in enumerate(widths.index):
        layer = widths.layers[index]
        ins, outs = int(inputs[place]) * layer.groups, int(outputs[place]) * layer.groups
        found[layer.size, ins, outs] += int(widths.counts[place])
    assert found == expected


@pytest.mark.parametrize("name", sorted(PRUNABLE))
def test_the_pieces_macs_are_the_networks(name: str) -> None:
    """An independent count: no layer is missing from the layers, and none is in two."""
    structure, macs, widths = PRUNABLE[name].structure(), PRUNABLE[name].costs().macs(), widths_by(name)
    for seed in range(5):
        kept = np.array(random_plan(structure, seed=seed).kept)
        inputs, outputs = widths.of(kept)
        total = 0
        for place, index in enumerate(widths.index):
            layer = widths.layers[index]
            if layer.kind != "op":
                own = 1 if layer.kind == "depthwise" else int(inputs[place])
                positions = int(np.prod(layer.output_size))
                each = own * int(outputs[place]) * layer.groups * int(np.prod(layer.kernel)) * positions
                total += each * int(widths.counts[place])
        assert total == macs(kept)


def test_transformers_groups_are_refused_with_another_way() -> None:
    structure = PRUNABLE["plain"].structure()
    from dataclasses import replace

    heads = replace(structure, groups=tuple(replace(g, granularity="head") for g in structure.groups))
    with pytest.raises(ValueError, match=r"\['head'\].*macs:0.5"):
        widths_of(PRUNABLE["plain"].model(), heads, PRUNABLE["plain"].inputs())


class Shuffled(nn.Module):
    """Computes something else when it is narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(x) if x.shape[1] == 8 else torch.relu(x.neg().neg())
        return self.second(x).mean((2, 3))


def test_networks_that_compute_something_else_when_narrower_are_refused() -> None:
    model, inputs = Shuffled().eval(), torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="computes other operators when it is narrower"):
        widths_of(model, find_structure(model, inputs), inputs)


def test_names_are_short() -> None:
    relu = Call("aten.relu.default")
    layer = FusedLayer("conv", (8, 8), (3, 3), (2, 2), (1, 1), (1, 1), bias=True, norm=True, adds=True, activation=relu)
    assert str(layer) == "conv 3×3 / 2 at 8×8 + norm + add + relu"


def _cuts(network: nn.Module, name: str):  # type: ignore[no-untyped-def]
    return layer_instances(network, PRUNABLE[name].inputs())[0]


@cache
def widths_by(name: str) -> Any:
    network = PRUNABLE[name]
    return widths_of(network.model(), network.structure(), network.inputs())
