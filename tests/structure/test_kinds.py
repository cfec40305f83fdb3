"""Networks of many kinds: what is masked, shrunk, sliced and saved is one network, on every output."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.export.network import load_network, save_network
from autoprune.plan import PruningPlan
from autoprune.structure.edit import masked, shrink
from autoprune.structure.examples import Example, varied
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.structure.verify import alive
from experiments.coverage.architectures import OWN
from experiments.coverage.further import FURTHER

PLANS = 2
ARCHITECTURES = {**OWN, **FURTHER}
# nothing of them goes without changing what a norm sees, or a shape that is written down
UNITS = {
    "shufflenet v1": {"0.0": 8},
    "shufflenet v2": {"0.0": 4},  # a half of each of two halves
    "csp": {"0.0": 12, "1.cv1.0": 8, "1.cv2.0": 16, "2.cv1.0": 8, "2.cv2.0": 16},
    "unet, groupnorm": {"a.0": 4, "a.3": 12},
    "gated mlp": {"0": 16, "2": 16},
    "lstm tagger": {"embed": 16, "rnn": 20, "out.0": 16},
    "gru cells": {"encode": 12, "cell": 16},
    "vit": {"blocks.0.attn.qkv": 4, "blocks.0.mlp.0": 128},
    "vit, multiheadattention": {"blocks.0.self_attn": 4, "blocks.0.linear1": 64},
    "swin": {"a.attn.qkv": 2, "b.attn.qkv": 4},
    "decoder": {"blocks.0.q": 2, "blocks.0.gate": 64},
    "super-resolution": {"0": 12, "1.inner.0": 12, "2": 12},
    "channel multiplier": {"0.0": 8},
    "list of split sizes": {"a": 10, "a#2": 6, "b": 8},
    "masked weights": {"0": 20, "2": 16},
    "low-rank updates": {"0": 20, "2": 16},
    "decoder of images": {"0": 24, "3": 12},  # the written-out 24 follows
    "parameters of one's own": {"embed": 24, "in_weight": 4},
}


def built(name: str) -> tuple[nn.Module, Any, Structure]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about its own nested tensors
        network, inputs = ARCHITECTURES[name].build().eval(), ARCHITECTURES[name].inputs()
    return network, inputs, find_structure(network, inputs)


def plans(structure: Structure) -> list[tuple[PruningPlan, dict[str, Tensor]]]:
    rng = np.random.default_rng(0)
    made = []
    for trial in range(PLANS):
        kept = [g.levels[0] if trial == 0 else int(rng.choice(g.levels)) for g in structure.groups]
        ranking = {g.name: torch.from_numpy(rng.permutation(g.units)) for g in structure.groups}
        made.append((structure.plan(np.array(kept)), ranking))
    return made


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 0, f"{name} is silent, so nothing would be seen"
        assert (found[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), name


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masked_shrunk_sliced_and_saved_networks_are_one(name: str, tmp_path: Path) -> None:
    network, inputs, structure = built(name)
    units = dict(zip(structure.names, structure.units.tolist(), strict=True))
    assert {group: units.get(group) for group in UNITS.get(name, {})} == UNITS.get(name, {})
    example = varied(Example(inputs))
    with alive(network), torch.no_grad():
        for number, (plan, ranking) in enumerate(plans(structure)):
            with masked(network, structure, plan, ranking):
                expected = {key: tensor.clone() for key, tensor in example.outputs(network).items()}
            small = shrink(network, structure, plan, ranking)
            assert_close(example.outputs(small), expected)
            ordered = OrderedNetwork(network, structure, ranking)
            ordered.at(structure.dense.kept)
            assert_close(example.outputs(ordered.at(plan.kept)), expected)
            save_network(small, tmp_path / str(number), architecture=None)
            assert_close(example.outputs(load_network(tmp_path / str(number), model=network)), expected)


def test_every_network_whose_groups_are_known_is_one_of_them() -> None:
    assert UNITS.keys() <= ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ["vit", "convnext", "torch encoder", "weight standardisation"])
def test_groups_that_a_norm_normalises_are_offered_when_asked_for(name: str) -> None:
    network, inputs, exact = built(name)
    structure = find_structure(network, inputs, inexact=True)
    added = [group for group in structure.groups if group.name not in exact.names]
    assert added
    assert not any(group.exact for group in added)
    assert all(group.exact for group in exact.groups)
    for plan, ranking in plans(structure):
        outputs = Example(inputs).outputs(shrink(network, structure, plan, ranking).eval())
        assert all(torch.isfinite(tensor).all() for tensor in outputs.values())
