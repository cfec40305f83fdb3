from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.export.latency_measurement import WARM_UP, measure_latency
from autoprune.export.onnx import export_onnx
from autoprune.task import networks

EXAMPLE = torch.zeros(1, 1, 8, 8)


class Witness(nn.Module):
    """Writes down what it is run with; its copies share the notes."""

    notes: list[tuple[str, int, tuple[int, ...], bool, bool]] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        self.notes.append(
            (self.name, torch.get_num_threads(), tuple(x.shape), torch.is_inference_mode_enabled(), self.training)
        )
        return x


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken")


def test_latencies_are_positive_and_ordered(tmp_path: Path) -> None:
    both = {"dense": networks.digits_net(width=16), "pruned": networks.digits_net(width=4)}
    for name, network in both.items():
        export_onnx(network, EXAMPLE, tmp_path / name)
    files = {name: tmp_path / name for name in both}
    found = measure_latency(both, EXAMPLE, onnx_files=files, repeats=5)
    assert {name: set(runtimes) for name, runtimes in found.items()} == {
        name: {"torch", "onnxruntime"} for name in both
    }
    for latency in (latency for runtimes in found.values() for latency in runtimes.values()):
        assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms < 1000


def test_networks_take_turns_at_batch_one_with_the_threads_asked_for() -> None:
    Witness.notes.clear()
    before = torch.get_num_threads()
    networks_ = {"a": Witness("a").train(), "b": Witness("b")}
    measure_latency(networks_, torch.zeros(4, 1, 8, 8), onnx_files={}, repeats=3, threads=before + 1)
    assert [note[0] for note in Witness.notes] == ["a", "b"] * (WARM_UP + 3)
    assert {note[1:] for note in Witness.notes} == {(before + 1, (1, 1, 8, 8), True, False)}
    assert torch.get_num_threads() == before


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        measure_latency({"a": Broken()}, EXAMPLE, onnx_files={}, repeats=1, threads=before + 1)
    assert torch.get_num_threads() == before


def test_a_network_without_a_file_is_measured_in_torch_only() -> None:
    found = measure_latency({"a": networks.digits_net()}, EXAMPLE, onnx_files={}, repeats=1)
    assert list(found["a"]) == ["torch"]


def test_files_of_unknown_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names \\['b'\\]"):
        measure_latency({"a": nn.Identity()}, EXAMPLE, onnx_files={"b": tmp_path}, repeats=1)
