from pathlib import Path

import pytest

from autoprune.report.contents import read_contents
from autoprune.report.wording import on_device
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run


def told(folder: Path, device: object) -> str:
    run = write_run(folder / "run")
    run.write_json("result.json", run.read_json("result.json") | {"device": device})
    return on_device(read_contents(RunFolder.open(run.path))).replace("\u00a0", " ")


def test_predictions_stand_beside_measurements(tmp_path: Path) -> None:
    networks = {"dense": {"predicted": 2.0, "least": 2.2, "median": 2.3}}
    networks["searched"] = networks["uniform"] = networks["sensitivity"] = {
        "predicted": 1.0,
        "least": 1.1,
        "median": 1.2,
    }
    assert told(tmp_path, {"name": "this CPU", "latency_ms": networks}) == (
        "On this CPU: 1 ms predicted, 1.1 ms measured, with a median of 1.2 ms; dense 2 ms and 2.2 ms: a measured "
        "speedup of 2.00×."
    )


def test_of_a_device_that_is_not_at_hand_nothing_was_measured(tmp_path: Path) -> None:
    known = {"predicted": 1.0, "least": None, "median": None}
    networks = dict.fromkeys(("dense", "searched", "uniform", "sensitivity"), known)
    assert told(tmp_path, {"name": "phone", "latency_ms": networks}) == (
        "On phone: 1 ms predicted (dense 1 ms); the device is not at hand, so nothing was measured."
    )


@pytest.mark.parametrize("device", [None, {}])
def test_without_a_device_there_is_nothing_to_say(tmp_path: Path, device: object) -> None:
    assert told(tmp_path, device) == ""
