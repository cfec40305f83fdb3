"""Tables that are really measured, with as little care as there can be: what is tested is what becomes of them."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.device.device import predicted_and_measured
from autoprune.device.fingerprint import differences, fingerprint, in_words
from autoprune.device.fused_layer import Call, FusedLayer
from autoprune.device.grid import knots
from autoprune.device.latency_tables import LatencyTables, MissingTableError, layer_entry
from autoprune.device.measured_device import layers_ms, network_seconds
from autoprune.device.onnx_runtime import Template, onnx_session
from autoprune.device.profiler import random_plans
from autoprune.device.runtime import runtime_of, threads_of_torch
from autoprune.device.timing import Timings
from autoprune.device.widths import widths_of
from tests.commands import start_python
from tests.device.measured import profiled, this_cpu
from tests.models import PRUNABLE
from tests.tasks import prepared, tiny_task

RELU = Call("aten.relu.default")
LAYERS = {
    "conv": FusedLayer("conv", (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), norm=True, adds=True, activation=RELU),
    "grouped": FusedLayer("conv", (6, 6), (3, 3), (2, 2), (1, 1), (1, 1), groups=3, bias=True),
    "depthwise": FusedLayer("depthwise", (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), norm=True, activation=RELU),
    "linear": FusedLayer("linear", (2,), bias=True, activation=RELU),
    "no bias": FusedLayer("linear", (2,)),
    "mean": FusedLayer("op", (6, 6), op=Call("aten.mean.dim", ((2, 3),))),
    "sum": FusedLayer("op", (6, 6), op=Call("aten.add.Tensor"), tensors=2),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_a_piece_runs_at_any_width(name: str, kind: str) -> None:
    runtime, layer = runtime_of(name, device_type="cpu", batch=2, precision="fp32"), LAYERS[kind]
    with threads_of_torch(1):
        at = runtime.layer(layer)
        for inputs, outputs in ((1, 1), (5, 5 if layer.square else 7), (16, 16)):
            run = at(inputs, outputs)
            answer = run()
            shape = tuple((answer if isinstance(answer, torch.Tensor) else answer[0]).shape)  # type: ignore[index]
            assert shape[1] == (inputs if layer.square else outputs) * layer.groups
            assert shape[0] == 2 * (layer.size[0] if layer.kind == "linear" else 1)
            assert runtime.seconds(run) > 0


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_a_network_computes_the_same_everywhere(name: str) -> None:
    task = tiny_task("residual")
    with threads_of_torch(1):
        answer: Any = runtime_of(name, device_type="cpu", batch=3, precision="fp32").network(
            task.model, task.example_input, task.forward
        )()
        expected = task.model(task.example_input[:1]).expand(3, -1)
    assert np.allclose(answer if name == "torch" else answer[0], expected, rtol=1e-4, atol=1e-5)


def test_an_extra_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    task, runtime = tiny_task("plain"), runtime_of("openvino", device_type="cpu", batch=1, precision="fp32")
    with pytest.raises(ImportError, match=r"OpenVINO.*'autoprune\[openvino\]'"):
        runtime.network(task.model, task.example_input, task.forward)


def test_an_onnx_file_made_from_a_template_is_that_of_the_piece() -> None:
    """The same operators and weights of the same shapes as an export at that width."""
    import onnx

    layer = LAYERS["conv"]
    made = onnx.load_from_string(
        Template(layer.module(101, 103), layer.example(101, 103, batch=1)).at({101: 5, 103: 7})
    )
    fresh = onnx.load_from_string(Template(layer.module(5, 7), layer.example(5, 7, batch=1)).at({}))
    for graph in (made.graph, fresh.graph):
        assert [node.op_type for node in graph.node] == ["Conv", "Add", "Relu"]
        assert sorted(tuple(weight.dims) for weight in graph.initializer) == [(7,), (7, 5, 3, 3)]
    assert onnx_session(made.SerializeToString(), threads=1).get_inputs()[0].shape[1:] == [5, 6, 6]


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_a_profiled_task_has_a_latency(cache: Path, runtime: str) -> None:
    device, task = this_cpu(runtime=runtime), tiny_task("plain")
    structure = PRUNABLE["plain"].structure()
    assert profiled(device, task)
    latency = device.costs(task, structure)["latency"]
    assert (latency.name, latency.unit) == ("latency", "ms")
    assert 0 < latency(structure.units) < 100
    told = predicted_and_measured(device, task, latency, {"dense": structure.dense}, {"dense": task.model})
    assert told["name"].startswith(f"this CPU, {runtime}")
    assert 0 < told["latency_ms"]["dense"]["least"] <= told["latency_ms"]["dense"]["median"]


def test_what_was_measured_is_not_measured_again(cache: Path) -> None:
    device, task = this_cpu(), tiny_task("plain")
    assert profiled(device, task)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
    assert profiled(device, task) == []
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")} == before
    path = max(before, key=lambda path: path.stat().st_size)
    path.unlink()
    assert profiled(device, task)
    assert path.exists()


def test_identical_geometries_are_measured_once(cache: Path) -> None:
    """Of another task, too: only what the first one lacks is measured."""
    device = this_cpu()
    profiled(device, tiny_task("flattened"))
    first = len(list(cache.rglob("layers/*.npz")))
    told = profiled(device, tiny_task("bn_without_affine"))
    assert told
    assert len(list(cache.rglob("layers/*.npz"))) > first
    widths = widths_of(PRUNABLE["residual"].model(), PRUNABLE["residual"].structure(), PRUNABLE["residual"].inputs())
    assert widths.counts.sum() == 5
    assert len(widths.layers) == 4


def test_points_beside_a_slow_reference_are_measured_again(cache: Path) -> None:
    device, task = this_cpu(), tiny_task("plain")
    profiled(device, task)
    widths = widths_of(task.model, PRUNABLE["plain"].structure(), task.example_input)
    entry = layer_entry(widths.layers[0])
    points, _ = device.store.points(entry)
    slow = Timings(np.full(1, 9.0), np.full(1, 9.0), np.full(1, 1e12))
    device.store.add(entry, points[:1], slow)
    profiled(device, task)
    assert device.store.points(entry)[1].minimum.max() < 9.0


def test_a_task_that_was_not_profiled_is_an_error_with_the_command(cache: Path) -> None:
    with pytest.raises(
        MissingTableError,
        match=r"'plain'.*3×3 at 8×8.*task=plain "
        r"device=this_cpu device.runtime=torch device.batch=1 device.precision=fp32 device.threads=1",
    ):
        this_cpu().costs(tiny_task("plain"), PRUNABLE["plain"].structure())


def test_a_missing_table_names_what_the_nearest_one_differs_in(cache: Path) -> None:
    profiled(this_cpu(), tiny_task("plain"))
    with pytest.raises(MissingTableError, match=r"\(batch 1 there, 4 here\)"):
        this_cpu(batch=4).costs(tiny_task("plain"), PRUNABLE["plain"].structure())


def test_another_devices_tables_are_refused(cache: Path) -> None:
    device = this_cpu()
    profiled(device, tiny_task("plain"))
    folder = device.store.folder
    assert this_cpu(tables=folder).costs(tiny_task("plain"), PRUNABLE["plain"].structure())
    made = json.loads((folder / "device.json").read_text())
    (folder / "device.json").write_text(json.dumps(made | {"threads": 64, "torch": "1.0"}))
    with pytest.raises(ValueError, match=r"64 there, 1 here.*'1.0'.*autoprune profile"):
        this_cpu(tables=folder).costs(tiny_task("plain"), PRUNABLE["plain"].structure())
    with pytest.raises(MissingTableError, match=r"holds no latency tables"):
        this_cpu(tables=folder.parent).costs(tiny_task("plain"), PRUNABLE["plain"].structure())
    (folder / "device.json").write_text("{")
    with pytest.raises(ValueError, match=r"device.json is damaged"):
        this_cpu(tables=folder).costs(tiny_task("plain"), PRUNABLE["plain"].structure())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runtime": "tensorrt"}, r"device.runtime.*torch_compiled.*'tensorrt'"),
        ({"precision": "fp8"}, r"device.precision.*fp32.*bf16.*'fp8'"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, r"at fp32.*CPU"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        this_cpu(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"device\.device_type=cuda.*CUDA"):
        this_cpu(device_type="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_is_profiled(cache: Path) -> None:
    device, task = this_cpu(device_type="cuda"), tiny_task("plain")
    profiled(device, task)
    assert device.costs(task, PRUNABLE["plain"].structure())["latency"](PRUNABLE["plain"].structure().units) > 0


def test_the_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store, layer = LatencyTables(tmp_path, {"threads": 1}), layer_entry(LAYERS["conv"])
    store.begin()
    first = Timings(np.array([1.0, 2.0]), np.array([1.5, 2.5]), np.array([0.1, 0.1]))
    store.add(layer, [(1, 2), (3, 4)], first)
    store.add(layer, [(3, 4), (5, 6)], Timings(np.array([7.0, 8.0]), np.array([7.5, 8.5]), np.array([0.2, 0.2])))
    points, timings = store.points(layer)
    assert dict(zip(points, timings.minimum.tolist(), strict=True)) == {(1, 2): 1.0, (3, 4): 7.0, (5, 6): 8.0}
    assert dict(zip(points, timings.reference.tolist(), strict=True)) == {(1, 2): 0.1, (3, 4): 0.2, (5, 6): 0.2}
    assert json.loads(next(tmp_path.glob("layers/*.json")).read_text())["kernel"] == [3, 3]
    assert not list(tmp_path.rglob(".*"))


def test_fingerprints_differ_in_what_speed_depends_on() -> None:
    settings = {"runtime": "torch", "device_type": "cpu", "batch": 1, "precision": "fp32", "threads": 1}
    here = fingerprint(**settings)  # type: ignore[arg-type]
    assert here == fingerprint(**settings)  # type: ignore[arg-type]
    assert {"torch", "cores", "threads"} <= here.keys()
    other = fingerprint(**settings | {"threads": 2, "runtime": "onnxruntime"})  # type: ignore[arg-type]
    assert set(differences(here, other)) == {"threads", "runtime", "onnxruntime"}
    assert in_words({"threads": (2, 1)}) == "threads 2 there, 1 here"


def test_random_plans_have_all_kinds_of_widths() -> None:
    structure = PRUNABLE["plain"].structure()
    plans = random_plans(structure, 40, seed=0)
    assert plans.shape == (40, len(structure.groups))
    assert (plans >= 1).all()
    assert (plans <= structure.units).all()
    assert (plans == random_plans(structure, 40, seed=0)).all()
    assert len(np.unique(plans, axis=0)) > 10


def test_tables_have_every_width(cache: Path) -> None:
    device, task = this_cpu(), tiny_task("plain")
    profiled(device, task)
    widths = widths_of(task.model, PRUNABLE["plain"].structure(), task.example_input)
    for found, layer, (ins, outs) in zip(layers_ms(device.store, widths), widths.layers, widths.ranges, strict=True):
        assert found.shape == (ins[1] + 1, 1 if layer.square else outs[1] + 1)
        assert (found > 0).all()
        assert set(knots(*ins)) <= set(range(1, ins[1] + 1))
    plans, seconds = network_seconds(device.store, widths)
    assert len(plans) == len(seconds) == 8


def test_a_search_gets_the_latency_as_a_cost_and_its_steps_as_levels(cache: Path) -> None:
    device, task = this_cpu(), tiny_task("plain")
    profiled(device, task)
    ready = prepared(task, device=device, budget=["macs:0.9", "latency:50ms"], round_to="device")
    assert ready.spec.device is device
    assert "latency" in ready.costs
    outcome = ready.objective.uncharged.evaluate([ready.structure.plan(ready.structure.floor)])[0]
    assert outcome.cost["latency"] > 0
    wide = PRUNABLE["plain"].structure()
    assert all(set(a.levels) <= set(b.levels) for a, b in zip(ready.structure.groups, wide.groups, strict=True))
    with pytest.raises(ValueError, match=r"structure\.round_to=device needs a device"):
        prepared(task, round_to="device")


KILLED = """
import sys
from tests.device.measured import profiled, this_cpu
from tests.tasks import tiny_task

profiled(this_cpu(), tiny_task("residual"))
print("done", flush=True)
"""


@pytest.mark.slow  # what was measured is not measured again: above
def test_a_profile_that_is_killed_goes_on_where_it_was(cache: Path) -> None:
    process = start_python(KILLED, env=os.environ | {"AUTOPRUNE_CACHE": str(cache)})
    deadline = time.monotonic() + 300
    while not list(cache.rglob("layers/*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    device, task = this_cpu(), tiny_task("residual")
    widths = widths_of(task.model, PRUNABLE["residual"].structure(), task.example_input)
    kept = {
        layer: dict(zip(*_columns(device.store.points(layer_entry(layer))), strict=True)) for layer in widths.layers
    }
    assert any(kept.values())
    profiled(device, task)
    for layer, before in kept.items():
        after = dict(zip(*_columns(device.store.points(layer_entry(layer))), strict=True))
        assert before.items() <= after.items()
    assert device.costs(task, PRUNABLE["residual"].structure())


def _columns(found: tuple[list[Any], Timings]) -> tuple[list[Any], list[float]]:
    return found[0], found[1].minimum.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_a_compiled_network_is_timed() -> None:
    runtime = runtime_of("torch_compiled", device_type="cpu", batch=1, precision="fp32")
    network = PRUNABLE["plain"]
    with threads_of_torch(1):
        run = runtime.network(network.model(), network.inputs(), lambda net, x: net(x))
        assert 0 < runtime.seconds(run) < 1
