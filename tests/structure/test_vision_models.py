"""Networks of torchvision and timm, where these are installed: nothing of them is written down here."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# package, model → the fewest groups that it has
MODELS = {("torchvision", "mobilenet_v3_small"): 20, ("torchvision", "regnet_y_400mf"): 40, ("timm", "resnet10t"): 4}


def package(name: str) -> Any:
    """The package; without a build that fits this torch, its Python part, whose two missing operators are declared."""
    for _ in range(2):
        try:
            return importlib.import_module(name)
        except RuntimeError:
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + NMS)
            KEPT.append(library)
        except ImportError as error:
            pytest.skip(f"{name} is not installed ({error}); docs/add_a_task.md says how")
    pytest.skip(f"{name} does not import beside torch {torch.__version__}")


KEPT: list[Any] = []  # a library's operators vanish with it


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), MODELS)
def test_published_networks_are_pruned_as_they_are_masked(name: str, model: str) -> None:
    source = package(name)
    torch.manual_seed(0)
    network: nn.Module = (source.models.get_model if name == "torchvision" else source.create_model)(model).eval()
    images = torch.randn(1, 3, 64, 64)
    structure = find_structure(network, images)
    assert len(structure.groups) >= MODELS[name, model]
    rng = np.random.default_rng(0)
    plan = structure.plan(np.array([rng.choice(group.levels) for group in structure.groups]))
    ranking = {group.name: torch.from_numpy(rng.permutation(group.units)) for group in structure.groups}
    with torch.no_grad(), masked(network, structure, plan, ranking):
        expected = network(images).clone()
    outputs = shrink(network, structure, plan, ranking)(images)
    assert expected.abs().max() > 0
    assert torch.allclose(outputs, expected, atol=1e-4 * float(expected.abs().max()))
