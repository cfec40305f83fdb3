"""`autoprune train-pruned` and `tickets`: settings that are refused, and runs that are killed and go on."""

import json
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
from tests.commands import run, start

SMALL = ["task=digits", "threads=1", "tracking=none"]
TRAIN = ["train-pruned", *SMALL, "schedule=rigl", "budget=weights:0.1", "steps=60", "start=initial"]
TICKETS = ["tickets", *SMALL, "rounds=3", "steps=60", "controls=[reinitialised]", "control_rounds=[3]"]


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("train_pruned", "budget=macs:0.5", "budget: it is written weights:DENSITY"),
        ("train_pruned", "budget=weights:1.5", "budget: it is written weights:DENSITY"),
        ("train_pruned", "budget=weights:0.0", "a density in"),
        ("train_pruned", "training=0.25", "training"),
        ("train_pruned", "training=x", "multiple of the usual training"),
        ("train_pruned", "counted=hours", "counted must be 'macs' or 'steps'"),
        ("train_pruned", "recipe.learning_rate=-1.0", "recipe.learning_rate must be above 0"),
        ("train_pruned", "+schedule.start=2.0", "schedule.start must be at most 1"),
        ("train_pruned", "+schedule.begin=0.1", "schedule.begin is no setting"),
        ("tickets", "rewind=twice", "rewind must be"),
        ("tickets", "share=0.0", "share must be above 0"),
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
def test_channels_are_gone_from_the_exported_network_and_nan_is_a_sentence(tmp_path: Path) -> None:
    channels = ["granularity=channel", "budget=weights:0.4", "schedule=one_shot", "hydra.run.dir=channels"]
    done = run("train-pruned", *SMALL, "steps=30", *channels, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "channels" / "result.json").read_text())
    assert result["density"] <= 0.4
    network = autoprune.load(tmp_path / "channels")
    weights = sum(p.numel() for name, p in network.named_parameters() if p.ndim > 1)
    assert weights == result["weights"]
    done = run(*TRAIN, "recipe.learning_rate=1e30", "hydra.run.dir=nan", cwd=tmp_path)
    assert done.returncode == 1
    assert "lower the learning rate; what was trained up to there stands in" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "nan" / "training.safetensors").exists()
