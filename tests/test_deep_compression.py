"""The recipe on a small network: pruned, shared and coded, in one file that is what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.deep_compression import CompressedNetwork, CompressionSettings, deep_compression
from autoprune.evaluation.judge import Judge
from autoprune.task.lenets import lenet_5_net, lenet_300_100_net
from autoprune.task.shipped import digits
from tests.tasks import tiny_task

SETTINGS = CompressionSettings(density=0.3, bits=4, convolution_bits=4, pruning_steps=60, centroid_steps=20)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompressedNetwork]:
    file = tmp_path_factory.mktemp("compressed") / "small.apz"
    return file, deep_compression(digits(), file, SETTINGS)


def test_the_file_holds_what_was_measured(compressed: tuple[Path, CompressedNetwork]) -> None:
    task, (file, result) = digits(), compressed
    again = autoprune.load(file)
    assert float(Judge(task, task.data.test)(again).accuracy) == result.accuracy["quantized"]
    assert result.bytes == file.stat().st_size
    dense = sum(parameter.numel() for parameter in task.model.parameters())
    assert result.ratio == pytest.approx(4 * dense / result.bytes)
    weights = sum(layer.weights for layer in result.layers)
    assert sum(layer.kept for layer in result.layers) <= round(0.3 * weights)
    assert sum(layer.bytes for layer in result.layers) < result.bytes
    assert result.accuracy["quantized"] > 0.85
    row = result.as_json()["layers"][0]
    assert row["coded_value_bits"] <= 8 * row["parts"]["codes"] / row["kept"]


def test_each_part_alone_is_larger_than_both(compressed: tuple[Path, CompressedNetwork], tmp_path: Path) -> None:
    task, short = digits(), replace(SETTINGS, pruning_steps=5, centroid_steps=0)  # a size needs no accuracy
    for name, settings in {"pruned": replace(short, bits=None), "quantized": replace(short, density=1.0)}.items():
        result = deep_compression(task, tmp_path / f"{name}.apz", settings)
        assert result.bytes > 1.3 * compressed[1].bytes
    with pytest.raises(ValueError, match="pruning_steps=0"):
        deep_compression(task, tmp_path / "x.apz", replace(SETTINGS, pruning_steps=0))


def test_the_lenets_have_the_papers_sizes() -> None:
    sizes = [sum(p.numel() for p in network.parameters()) for network in (lenet_300_100_net(), lenet_5_net())]
    assert sizes == [266_610, 431_080]
    assert lenet_5_net()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_codes_by_outputs_and_trained_centroids_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give centroid_steps=0"):
        deep_compression(tiny_task("residual"), tmp_path / "n.apz", CompressionSettings(assignment="outputs"))
    settings = CompressionSettings(density=1, bits=2, convolution_bits=2, centroid_steps=0)
    nearest = deep_compression(tiny_task("residual"), tmp_path / "n.apz", settings)
    chosen = deep_compression(tiny_task("residual"), tmp_path / "o.apz", replace(settings, assignment="outputs"))
    pairs = zip(nearest.network.parameters(), chosen.network.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)
    assert chosen.bytes < 1.1 * nearest.bytes
