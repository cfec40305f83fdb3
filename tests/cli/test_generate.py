"""`autoprune generate` on real run folders of tiny networks, right and wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autoprune.cli.generate import generate, tokenizer_folder
from autoprune.export.network import save_network
from autoprune.runs import RunFolder
from autoprune.task.language_measures import continuation, load_tokenizer
from tests.language_models import causal_task
from tests.task.pretrained_models import word_tokenizer

DENSE_TASK = """
from tests.language_models import causal_task

def another():
    return causal_task("llama", seed=3)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny language model."""
    folder, task = tmp_path_factory.mktemp("runs") / "run", causal_task("llama")
    RunFolder.create(folder).write_json("run.json", {"task": "tiny_llama"})
    save_network(task.model, folder / "network", architecture=task.architecture)
    word_tokenizer(tokenizer_folder(folder))
    return folder


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        generate(arguments)
    assert capsys.readouterr().out == ""
    text = str(exit_.value)
    assert text.startswith("error: ")
    return text


def test_it_prints_the_prompt_and_what_the_network_writes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate([str(run), "w5 w9", "tokens=6"])
    written = continuation(causal_task("llama").model, load_tokenizer(tokenizer_folder(run)), "w5 w9", tokens=6)
    assert capsys.readouterr().out == f"w5 w9{written}\n"
    assert 1 <= len(written.split()) <= 6


def test_the_dense_network_is_the_one_of_the_runs_task(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dense_task.py").write_text(DENSE_TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    RunFolder.open(run).write_text("config.yaml", "task:\n  _target_: dense_task.another\n")
    asked = [str(run), "w5 w9", "tokens=6", "dense=true"]
    assert "task._target_ is 'dense_task.another', which is not autoprune's own" in error_of(asked, capsys)
    generate([*asked, "task._target_=dense_task.another"])
    words = load_tokenizer(tokenizer_folder(run))
    texts = [continuation(causal_task("llama", seed=s).model, words, "w5 w9", tokens=6) for s in (0, 3)]
    assert capsys.readouterr().out == f"pruned: w5 w9{texts[0]}\ndense: w5 w9{texts[1]}\n"
    assert texts[0] != texts[1]


@pytest.mark.slow
def test_it_runs_as_a_process_without_warnings(run: Path) -> None:
    code = f"from autoprune.cli.generate import generate; generate([{str(run)!r}, 'w5 w9', 'tokens=3'])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("w5 w9")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a run and a prompt"),
        (["RUN", ""], "prompt is empty"),
        (["RUN", "w5", "tokens=-3"], "tokens must be at least 1, got -3"),
        (["RUN", "w5", "tokens=many"], "tokens must be an integer"),
        (["RUN", "w5", "w9"], "does not know 'w9'; a prompt of several words is quoted"),
        (["RUN", "w5", "dense=maybe"], "dense must be a boolean"),
        (["nowhere", "w5"], "there is no such folder"),
    ],
)
def test_wrong_requests_are_sentences(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of([str(run) if a == "RUN" else a for a in arguments], capsys)


def test_a_run_without_a_network_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder.create(tmp_path / "run").write_json("run.json", {"task": "tiny_llama"})
    assert "holds no pruned network" in error_of([str(tmp_path / "run"), "w5"], capsys)


@pytest.mark.parametrize("own", [False, True])
def test_a_run_of_images(own: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from autoprune.task.shipped import digits

    torch.manual_seed(0)
    task, folder = digits(), tmp_path / "run"
    RunFolder.create(folder).write_json("run.json", {"task": "digits"})
    save_network(task.model, folder / "network", architecture=None if own else task.architecture)
    assert "the task 'digits', which is no language model" in error_of([str(folder), "w5"], capsys)


def test_a_run_that_lost_its_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, folder = causal_task("gpt2"), tmp_path / "run"
    RunFolder.create(folder).write_json("run.json", {"task": "tiny_gpt2"})
    save_network(task.model, folder / "network", architecture=task.architecture)
    assert "holds no tokenizer" in error_of([str(folder), "w5"], capsys)


def test_a_dense_network_needs_the_runs_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, folder = causal_task("gpt2"), tmp_path / "run"
    RunFolder.create(folder).write_json("run.json", {"task": "tiny_gpt2"})
    save_network(task.model, folder / "network", architecture=task.architecture)
    word_tokenizer(tokenizer_folder(folder))
    assert "no config.yaml that names its task" in error_of([str(folder), "w5", "dense=true"], capsys)


def test_an_altered_network_is_noticed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, folder = causal_task("gpt2"), tmp_path / "run"
    RunFolder.create(folder).write_json("run.json", {"task": "tiny_gpt2"})
    save_network(task.model, folder / "network", architecture=task.architecture)
    shape = folder / "network" / "network.json"
    shape.write_text(json.dumps({**json.loads(shape.read_text()), "schema": 99}))
    assert "schema 99" in error_of([str(folder), "w5"], capsys)
