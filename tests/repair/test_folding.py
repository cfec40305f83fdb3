from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.repair.folding import fold_batch_norms, followers
from autoprune.structure.graph import find_structure
from tests.models import CLASSES, Network, random_ranking

FOLDED = {
    "residual": 3,
    "separable": 3,
    "grouped": 3,  # and none in "dense", where others read what the BatchNorms read
    "plain": 2,
    "conv1d": 3,
    "bn_without_affine": 2,
    "digits_net": 6,
}


def norms(network: nn.Module) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def ordered(network: Network, *, dtype: torch.dtype = torch.float32, example: Tensor | None = None) -> OrderedNetwork:
    model, inputs = network.model(), network.inputs()
    structure = find_structure(model, inputs)
    ranking, example = random_ranking(structure, seed=0), inputs if example is None else example
    return OrderedNetwork(model, structure, ranking, dtype=dtype, example_input=example)


def dense_outputs(network: Network, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Of the ordered network and of the network itself."""
    folded, inputs = ordered(network, dtype=dtype), network.inputs(5, seed=3)
    structure = find_structure(network.model(), network.inputs())
    with torch.no_grad():
        return folded.at(structure.dense.kept)(inputs.to(dtype)).float(), network.model()(inputs)


def head(channels: int = 6) -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def test_outputs_stay_what_they_were(network: Network, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["network"]
    before, after = norms(network.model()), norms(ordered(network).network)
    assert len(before) - len(after) == FOLDED.get(name, 0)
    found, expected = dense_outputs(network)
    assert (found - expected).abs().max() < 1e-5
    found, expected = dense_outputs(network, dtype=torch.bfloat16)
    assert (found - expected).abs().max() < 0.05 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_with_and_without_bias_and_affine(bias: bool, affine: bool) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=bias), nn.BatchNorm2d(6, affine=affine), *head(),
            nn.BatchNorm1d(CLASSES, affine=affine), nn.ReLU(), nn.Linear(CLASSES, 8, bias=bias),
            nn.BatchNorm1d(8, affine=affine), nn.ReLU(), nn.Linear(8, CLASSES),
        )  # fmt: skip

    assert norms(ordered(Network(build)).network) == []
    found, expected = dense_outputs(Network(build))
    assert (found - expected).abs().max() < 1e-5


class ReadTwice(nn.Module):
    """The convolution's output is read by somebody else as well."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6, CLASSES)
        self.last, self.scale = nn.Linear(CLASSES, CLASSES), scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(self.fc((F.relu(self.bn(x)) + x).mean((2, 3)))) * self.scale


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
@pytest.mark.parametrize("zeros", [True, False])
def test_nothing_is_folded_where_somebody_else_reads_what_stands_between(scale: float, zeros: bool) -> None:
    """However small the outputs are, and whatever the example input shows of them."""
    network = Network(lambda: ReadTwice(scale))
    example = torch.zeros(1, *network.shape) if zeros else network.inputs()
    assert norms(ordered(network, example=example).network) == ["bn"]
    found, expected = dense_outputs(network)
    assert (found - expected).abs().max() <= 1e-5 * scale


class TwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc((F.relu(self.one(x)) + torch.tanh(self.two(x))).mean((2, 3)))


def test_two_norms_of_one_convolution_stay() -> None:
    assert norms(ordered(Network(TwoNorms)).network) == ["one", "two"]


def test_a_norm_without_running_statistics_stays() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), *head())

    model = build().eval()
    folded = nn.Sequential(*model.children())
    for layer in folded.modules():
        for key, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            layer.__dict__[key] = tensor
        layer._parameters.clear(), layer._buffers.clear()
    assert fold_batch_norms(folded, torch.randn(1, 3, 8, 8)) == ()
    assert norms(folded) == ["1"]


# who follows whom


def between(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), *layers, nn.BatchNorm2d(6), *head())


class WritesBetween(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.relu_(self.conv(x))).mean((2, 3))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.bn(self.conv(x)))).mean((2, 3))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: between(), {"0": "1"}),
        (lambda: between(nn.Identity()), {"0": "2"}),
        (lambda: between(nn.ReLU()), {}),
        (lambda: between(nn.ReLU(inplace=True)), {}),
        (WritesBetween, {}),
        (Twice, {}),
        (TwoNorms, {"conv": "two"}),
    ],
)
def test_a_norm_follows_the_layer_whose_very_output_it_reads(
    build: Callable[[], nn.Module], expected: dict[str, str]
) -> None:
    model = build().eval()
    assert followers(model, torch.randn(1, 3, 8, 8)) == expected
    assert not any(layer._forward_hooks for layer in model.modules())
