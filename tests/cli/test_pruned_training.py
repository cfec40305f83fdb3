"""`autoprune train-pruned` and `tickets`: settings that are refused, and runs that are killed and go on."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

import autoprune
from autoprune.cli.command_settings import RULES, TicketsSettings, TrainPrunedSettings
from autoprune.cli.composition import composed
from autoprune.cli.validation import SettingsError, check
from autoprune.schedule.engine import CHECKPOINT
from autoprune.schedule.masked_training import Snapshot
from tests.commands import run, start

SMALL = ["task=digits", "threads=1", "tracking=none"]
TRAIN = ["train-pruned", *SMALL, "schedule=rigl", "budget=weights:0.1", "steps=60", "start=initial"]
TICKETS = ["tickets", *SMALL, "rounds=3", "steps=60", "controls=[reinitialised]", "control_rounds=[3]"]


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("train_pruned", "budget=macs:0.5", "weights:DENSITY"),
        ("train_pruned", "budget=weights:1.5", "weights:DENSITY"),
        ("train_pruned", "budget=weights:0.0", "a density in"),
        ("train_pruned", "budget=0.05", r"weights:DENSITY.*got 0.05"),
        ("train_pruned", "training=0.25", "training: it is a multiple of the usual training, such as 0.25x"),
        ("train_pruned", "training=x", "multiple of the usual training"),
        ("train_pruned", "counted=hours", r"counted.*'macs'.*'steps'"),
        ("train_pruned", "+schedule.begin=0.1", "schedule.begin is no setting"),
        ("tickets", "rewind=twice", "rewind must be"),
        ("tickets", "controls=[luck]", "controls"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_composed(name: str, override: str, sentence: str) -> None:
    section = TrainPrunedSettings if name == "train_pruned" else TicketsSettings
    with pytest.raises(SettingsError, match=sentence):
        check(composed(name, [override]), section, RULES, command=name)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "when"), [(TRAIN, "training.safetensors"), (TICKETS, "round.safetensors")])
def test_a_run_that_is_killed_goes_on_bit_for_bit(command: list[str], when: str, tmp_path: Path) -> None:
    whole = run(*command, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = start(*command, "hydra.run.dir=cut", cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not (tmp_path / "cut" / when).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "result.json").exists()
    again = run(*command, "hydra.run.dir=cut", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    networks = [
        safetensors.torch.load_file(tmp_path / name / "network" / "network.safetensors") for name in ("whole", "cut")
    ]
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")]
    assert results[0] == results[1]
    complete = run(*command, "hydra.run.dir=cut", cwd=tmp_path)
    assert "is complete already" in complete.stdout
    other = run(*command, "hydra.run.dir=cut", "seed=5", cwd=tmp_path)
    assert other.returncode == 1
    assert "holds a run of other settings: seed is 0 there, 5 here" in other.stderr
    compared = run("compare", "whole", "cut", "out=compared", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "compared" / "trainings.html").exists()


@pytest.mark.slow
def test_channels_are_gone_from_the_exported_network(tmp_path: Path) -> None:
    channels = ["granularity=channel", "budget=weights:0.4", "schedule=one_shot", "hydra.run.dir=channels"]
    done = run("train-pruned", *SMALL, "steps=30", *channels, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "channels" / "result.json").read_text())
    assert result["density"] <= 0.4
    network = autoprune.load(tmp_path / "channels")
    weights = sum(p.numel() for name, p in network.named_parameters() if p.ndim > 1)
    assert weights == result["weights"]


OWN = """
from autoprune.schedule.decision import Decision

def rewinding(state):
    first = state.decision == 0
    return Decision(density=1.0 if first else 0.3, until=0.4 if first else 1.0, rewind="none" if first else "step",
                    rewind_step=7, save_steps=(5,))

def schedule():
    return rewinding
"""
OF_OWN = ["schedule._target_=own_schedules.schedule"]
FAILURES: dict[str, tuple[list[str], str, bool]] = {
    "density": (["train-pruned", "budget=weights:0.0001"], "ask for a density of at least", False),
    "rounds": (
        ["train-pruned", "schedule=iterative", "+schedule.rounds=12", "training=0.05x"],
        "leaves each of the 13",
        False,
    ),
    "tickets": (["tickets", "rounds=40", "share=0.5"], "ask for a density of at least", False),
    "point": (["train-pruned", *OF_OWN], r"step 7 needs the weights of that step.*\[0, 5\]", True),
    "nan": (["train-pruned", "recipe.learning_rate=1e30"], "lower the learning rate; what was", True),
    "tickets' nan": (["tickets", "rounds=2", "recipe.learning_rate=1e30"], "lower the learning rate; what was", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_is_one_sentence_and_what_was_trained_is_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / "own_schedules.py").write_text(OWN)
    (command, *given), sentence, kept = FAILURES[name]
    done = run(command, *SMALL, "steps=60", *given, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(sentence, done.stderr)
    assert done.stderr.count("\n") <= 2
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "result.json" not in left
    assert (CHECKPOINT in left) == kept
    if name == "point":
        (record,) = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        assert record["steps"] == 24
        assert Snapshot.load(tmp_path / "run" / CHECKPOINT).numbers["clock"]["step"] == 24


@pytest.mark.slow
def test_values_are_shared_after_the_training_and_the_run_has_the_small_file(tmp_path: Path) -> None:
    settings = ["steps=30", "budget=weights:0.3", "quantize=codebook", "quantize.bits=3", "quantize.convolution_bits=4"]
    for name, override in (("coded", ["quantize.steps=5"]), ("plain", ["quantize=none"])):
        chosen = settings + override if name == "coded" else settings[:2] + override
        done = run("train-pruned", *SMALL, *chosen, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "on the disk: " in done.stdout
    results = {name: json.loads((tmp_path / name / "result.json").read_text()) for name in ("coded", "plain")}
    assert results["coded"]["pruned"] == results["plain"]["pruned"]
    assert results["plain"]["pruned"]["test_accuracy"] == results["plain"]["points"][0]["test_accuracy"]
    assert [result["points"][0]["series"] for result in results.values()] == ["cubic, codebook", "cubic"]
    small, network = (autoprune.load(path) for path in (tmp_path / "coded/network/network.apz", tmp_path / "coded"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in small.state_dict().items())
    on_disk = results["coded"]["on_disk"]
    assert on_disk["bytes"] == (tmp_path / "coded/network/network.apz").stat().st_size
    assert 2 * on_disk["bytes"] < results["plain"]["on_disk"]["bytes"]
    assert all(row["parts"]["value_bits"] <= 5 for row in on_disk["layers"])
    assert not (tmp_path / "plain/network/network.apz").exists()
    assert "On the disk: " in (tmp_path / "coded/report.html").read_text()
