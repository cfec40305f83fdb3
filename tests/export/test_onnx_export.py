from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.device.onnx_runtime import has_batch_axis, onnx_call
from autoprune.export.onnx import export_onnx, export_onnx_into
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task import networks
from autoprune.task.seeded_forward import SeededForward
from autoprune.task.task import plain_forward
from tests.models import PRUNABLE, Network, TwoOutputs


def pruned(model: nn.Module, example_input: Tensor) -> nn.Module:
    structure = find_structure(model.eval(), example_input)
    ranking = {g.name: torch.randperm(g.units, generator=torch.Generator().manual_seed(0)) for g in structure.groups}
    return shrink(model, structure, structure.plan(np.maximum(structure.units // 2, 1)), ranking)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnx_runtime_agrees_with_torch_at_any_batch(tmp_path: Path, batch: int) -> None:
    network = pruned(networks.digits_net(width=8), torch.zeros(1, 1, 8, 8))
    assert export_onnx(network, torch.zeros(1, 1, 8, 8), tmp_path / "network.onnx") <= 1e-4
    inputs = torch.randn(batch, 1, 8, 8)
    with torch.inference_mode():
        expected = network(inputs).numpy()
    assert np.abs(onnx_call(tmp_path / "network.onnx", inputs)()[0] - expected).max() <= 1e-4


@pytest.mark.parametrize("name", [*PRUNABLE, "mobilenet_v1"])
def test_pruned_networks_export(tmp_path: Path, name: str) -> None:
    kinds = {**PRUNABLE, "mobilenet_v1": Network(partial(networks.mobilenet_v1, width_multiplier=0.125), (1, 28, 28))}
    network = pruned(kinds[name].model(), kinds[name].inputs())
    assert export_onnx(network, kinds[name].inputs(), tmp_path / "network.onnx") <= 1e-4


def test_the_first_of_several_outputs_is_compared(tmp_path: Path) -> None:
    network = Network(TwoOutputs)
    assert export_onnx(network.model(), network.inputs(), tmp_path / "network.onnx") <= 1e-4


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    network = networks.digits_net(width=8).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, torch.zeros(1, 1, 8, 8), tmp_path / "network.onnx")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_whole_number_inputs_stay_in_range(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    assert export_onnx(network, torch.tensor([[0, 4, 2]]), tmp_path / "network.onnx") <= 1e-4


class Stateful(nn.Module):
    """Reads states whose second axis is the batch, as torch's recurrences do."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        steps, state = self.cells(x, state)
        return self.head(steps), state


class MixedKernels(nn.Module):
    """A kernel for each sample, which the exporter has no operator for where the batch is dynamic."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.kernels = nn.Linear(2, 3), nn.Parameter(torch.randn(3, 4 * 2 * 3))

    def forward(self, x: Tensor) -> Tensor:
        kernels = (self.mix(x.mean(-1)) @ self.kernels).view(-1, 2, 3)
        return nn.functional.conv1d(x.view(1, -1, x.shape[-1]), kernels, groups=len(x)).view(len(x), 4, -1)


class ClassToken(nn.Module):
    """Puts a token before each sample's, as vision transformers do; how many samples there are is asked by `len`."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.mix, self.head = nn.Parameter(torch.randn(1, 1, 3)), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(torch.cat([self.token.expand(len(x), -1, -1), x], dim=1).tanh())
        return self.head(mixed.reshape(len(x), -1, 3).amax(1))


@pytest.mark.parametrize(
    ("network", "example", "batched"),
    [
        (ClassToken(), torch.randn(1, 4, 3), True),
        (Stateful(), (torch.randn(1, 5, 3), torch.zeros(1, 1, 4)), False),
        (MixedKernels(), torch.randn(1, 2, 6), False),
        (nn.Conv1d(2, 4, 3), torch.randn(1, 2, 6), True),
    ],
)
def test_only_what_no_batch_axis_fits_is_exported_for_one_sample(
    tmp_path: Path, network: nn.Module, example: Any, batched: bool
) -> None:
    assert export_onnx_into(tmp_path, network.eval(), example) <= 1e-4
    (path,) = tmp_path.iterdir()
    assert path.name == ("network.onnx" if batched else "network_one_sample.onnx")
    assert has_batch_axis(path) == batched


class DependsOnItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() == 0 else 2 * x  # tracing keeps only the branch of the example


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.nan


@pytest.mark.parametrize(("network", "message"), [(DependsOnItsInput(), "differs from torch"), (Nan(), "by nan")])
def test_a_file_that_differs_from_torch_is_refused_and_not_kept(
    tmp_path: Path, network: nn.Module, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export_onnx(network, torch.zeros(1, 4), tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


class Hidden(nn.Module):
    """The mean of what a mask leaves, which is nothing where it leaves none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        kept = kept[..., None].to(x.dtype)
        mean: Tensor = (self.layer(x) * kept).sum(1) / kept.sum(1)
        return mean


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_masks_keep_their_form(tmp_path: Path, dtype: torch.dtype) -> None:
    """Shuffled, they would leave nothing in some sample, and NaN is equal to nothing."""
    example = (torch.randn(1, 6, 4), torch.tensor([[1, 0, 0, 0, 0, 0]]).to(dtype))
    assert export_onnx(Hidden().eval(), example, tmp_path / "network.onnx") <= 1e-4


class Drawing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn_like(x)


def test_a_network_that_draws_is_not_put_down_to_tracing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"draws random numbers, and ONNX Runtime draws others") as refused:
        export_onnx(Drawing(4, 4), torch.zeros(1, 4), tmp_path / "network.onnx", forward=SeededForward(plain_forward))
    assert "tracing" not in str(refused.value)
