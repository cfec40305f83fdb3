"""Wide layers, whose products are made in float32: narrow ones are tested in test_least_squares.py."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.repair.moments import ACTIVATION_BYTES, WIDE, Moments, _batch_size, input_moments
from autoprune.structure.graph import find_structure
from autoprune.structure.transformer import transformer_structure
from tests.language_models import TINY

COLUMNS = WIDE + 40


def rows_of(mean: float, *, rows: int = 1500, seed: int = 0) -> Tensor:
    """Correlated columns with very different scales about one mean, [rows, COLUMNS] float32."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, COLUMNS, generator=generator) @ torch.randn(COLUMNS, COLUMNS, generator=generator)
    return mixed / COLUMNS**0.5 * torch.logspace(-2, 1, COLUMNS) + mean


def moments_of(rows: Tensor, *, batch: int = 400) -> Moments:
    layer = nn.Linear(rows.shape[1], 3)
    moments = Moments(layer, total=len(rows), wanted=len(rows))
    for part in rows.split(batch):
        moments.add(layer, part, torch.Generator().manual_seed(0))
    return moments


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0])
def test_float32_products_keep_the_variances(mean: float, centred: bool) -> None:
    rows = rows_of(mean)
    gram, found_mean = moments_of(rows).gram("x", centred=centred, ridge=1e-3)
    exact = rows.double()
    torch.testing.assert_close(found_mean[0], exact.mean(0), rtol=1e-6, atol=1e-6)
    exact = exact - exact.mean(0) if centred else exact
    expected = exact.T @ exact / len(rows)
    expected += 1e-3 * expected.diagonal().mean() * torch.eye(COLUMNS)
    scale = (expected.diagonal()[:, None] * expected.diagonal()).sqrt()
    assert ((gram[0] - expected).abs() / scale).max() < 2e-6


def test_weights_from_float32_products_are_those_of_lstsq() -> None:
    """As accurate as least_squares.py promises: 1e-4 of the weights, from half of the columns."""
    rows, weight = rows_of(0.5), torch.randn(5, COLUMNS, generator=torch.Generator().manual_seed(1)).double()
    gram = moments_of(rows).gram("x", centred=True, ridge=1e-3)[0][0]
    kept = COLUMNS // 2
    found = torch.linalg.solve(gram[:kept, :kept], gram[:kept] @ weight.T)
    centred = rows.double() - rows.double().mean(0)
    penalty = (1e-3 * centred.square().mean()).sqrt() * torch.eye(COLUMNS)
    system = torch.cat([centred / len(rows) ** 0.5, penalty.double()])
    exact = torch.linalg.lstsq(system[:, :kept], system @ weight.T).solution
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4 * weight.abs().max().item())


def test_too_few_rows_need_a_ridge_in_float32_too() -> None:
    moments = moments_of(rows_of(0, rows=COLUMNS // 2))
    with pytest.raises(ValueError, match=rf"{COLUMNS // 2} rows.*ridge=0"):
        moments.gram("x", centred=False, ridge=0)
    assert torch.isfinite(moments.gram("x", centred=False, ridge=1e-3)[0]).all()


def test_a_constant_that_is_large_is_a_constant() -> None:
    rows = rows_of(0)
    rows[:, 7] = 1000.1
    gram, mean = moments_of(rows).gram("x", centred=True, ridge=1e-4)
    ridge = 1e-4 * (gram[0].diagonal().mean() / (1 + 1e-4))
    assert gram[0, 7, 7].item() == pytest.approx(ridge.item(), rel=1e-3)
    assert mean[0, 7].item() == pytest.approx(1000.1, rel=1e-6)


def test_layers_that_read_one_tensor_have_the_same_moments() -> None:
    task = TINY["llama"]()
    structure = transformer_structure(task.model, task.example_input)
    names = tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkvo")
    role, generator = task.data.calibration, torch.Generator()
    found = input_moments(
        task.model, structure, role, forward=task.forward, names=names, rows=10**6, generator=generator
    )
    assert list(found) == list(names)
    assert found[names[0]] is found[names[1]] is found[names[2]] is not found[names[3]]
    assert found[names[3]].drawn == role.inputs.numel()


def test_a_layer_that_never_runs_is_named() -> None:
    moments = Moments(nn.Linear(3, 3), total=5, wanted=5)
    with pytest.raises(ValueError, match="'x' read nothing"):
        moments.gram("x", centred=False, ridge=1e-3)


def test_where_no_layer_is_asked_for_the_network_does_not_run() -> None:
    task = TINY["llama"]()
    structure = transformer_structure(task.model, task.example_input)

    def runs(*_: object) -> Tensor:
        raise AssertionError("the network ran, and nobody reads what its layers read")

    role, generator = task.data.calibration, torch.Generator()
    assert input_moments(task.model, structure, role, forward=runs, names=(), rows=9, generator=generator) == {}


def test_large_outputs_are_read_in_small_batches() -> None:
    network = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
    structure = find_structure(network, torch.zeros(1, 1, 10, 10))
    assert _batch_size(structure) == 64
    wide = [replace(layer, positions=200**2) for layer in structure.layers]
    assert _batch_size(replace(structure, layers=tuple(wide))) == ACTIVATION_BYTES // (4 * 32 * 200**2) == 3
    huge = [replace(layer, positions=10**9) for layer in structure.layers]
    assert _batch_size(replace(structure, layers=tuple(huge))) == 1
