"""Exported networks, read by others: pruned ones of every kind, and one judged by lm-evaluation-harness."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import autoprune
from autoprune.cli.export import export
from autoprune.export.network import RUN_FOLDER, TOKENIZER_FOLDER, save_network
from autoprune.export.pretrained_folder import copy_tokenizer, write_pretrained_folder
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.folders import SMOLLM2, smollm2_folder
from autoprune.task.pretrained import CAUSAL, Pretrained
from autoprune.task.task import Architecture
from tests.language_models import TINY
from tests.models import random_ranking
from tests.task.pretrained_models import model_folder

PROMPT = torch.tensor([[1, 5, 9, 13]])
SENTENCE = "The lighthouse keeper had not spoken to anyone for"
KINDS = {  # kind → what every group of SmolLM2 keeps, one after the other, and of the tiny Llama
    "blocks": ((1, 1, 0, 1), (1, 0, 1)),
    "heads": ((2,), (1,)),
    "neurons": ((1024,), (40,)),
    "weights": ((300, 200), (16, 8)),
    "2:4": ((2,), (2,)),
}


@pytest.fixture(params=["tiny", pytest.param("smollm2", marks=pytest.mark.slow)])
def pretrained(request: pytest.FixtureRequest, tmp_path: Path) -> Pretrained:
    """A trained Llama, or a tiny one that whoever runs the tests has."""
    if request.param == "tiny":
        folder = model_folder(tmp_path / "tiny", "llama")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "bos_token_id": 1}))
        return Pretrained.check(folder, CAUSAL)
    if find_spec(SMOLLM2[0]) is None:
        pytest.skip(f"the weights of SmolLM2 are not installed ({SMOLLM2[1]})")
    return Pretrained.check(smollm2_folder(), CAUSAL)


def pruned(model: nn.Module, kind: str, choices: tuple[int, ...]) -> nn.Module:
    structure = find_structure(model, torch.arange(8)[None], prune=(kind,))
    if structure.groups[0].compared:  # of two blocks: all of them take long to sort
        structure = replace(structure, groups=structure.groups[:14])
    kept = np.resize(np.array(choices), len(structure.groups))
    kept = np.array([min(k, group.units) for k, group in zip(kept, structure.groups, strict=True)])
    return shrink(model, structure, structure.plan(kept), random_ranking(structure, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_model_is_read_by_transformers(
    pretrained: Pretrained, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = pretrained.model()
    if kind == "blocks":
        for parameter in dense.parameters():  # not the rotary frequencies, which stay float32 in any precision
            parameter.data = parameter.data.bfloat16()
    network = pruned(dense, kind, KINDS[kind][pretrained.folder.name == "tiny"])
    architecture = Architecture("autoprune.task.huggingface.causal_lm", {"config": pretrained.config})
    save_network(network, tmp_path / RUN_FOLDER, architecture=architecture)
    copy_tokenizer(pretrained.folder, tmp_path / RUN_FOLDER / TOKENIZER_FOLDER)
    assert not (tmp_path / RUN_FOLDER / TOKENIZER_FOLDER / "config.json").exists()
    export([str(tmp_path), "format=hf"])
    assert "layout=stock" in capsys.readouterr().out
    folder = tmp_path / RUN_FOLDER / "hf"
    read = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert read.dtype == network.dtype
    assert read.config.tie_word_embeddings
    assert read.get_input_embeddings().weight is read.get_output_embeddings().weight
    assert read.generation_config.eos_token_id == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(SENTENCE, return_tensors="pt").input_ids
    own = autoprune.load(tmp_path)
    with torch.inference_mode():
        expected = network(tokens).logits
        for other in (read, own):
            assert torch.allclose(other(tokens).logits, expected, atol=1e-3 * float(expected.abs().max()))
    texts = {
        tokenizer.decode(model.generate(tokens, max_new_tokens=8, do_sample=False)[0])  # type: ignore[operator]
        for model in (network, read, own)
    }
    assert len(texts) == 1


def test_bf16_and_what_says_how_to_generate_are_kept(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "dense", "llama")
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], "bos_token_id": 1}))
    network = pruned(TINY["llama"]().model.bfloat16(), "neurons", (20, 31))
    copy_tokenizer(source, tmp_path / "tokenizer")
    for layout in ("padded", "blocks"):
        written = write_pretrained_folder(
            network,
            tmp_path / layout,
            layout=layout,  # type: ignore[arg-type]
            tokenizer=tmp_path / "tokenizer",
        )
        assert json.loads((written.path / "config.json").read_text())["dtype"] == "bfloat16"
        assert json.loads((written.path / "generation_config.json").read_text())["eos_token_id"] == [1, 2]
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "padded").eval()
    assert read.generation_config.eos_token_id == [1, 2]
    assert read.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "kind", "layouts", "others"),
    [
        ("llama", "neurons", ("padded", "blocks"), ()),
        ("gpt2", "heads", ("padded",), ("blocks",)),
        ("bert", "attention", (), ("padded", "blocks")),
        ("llama", "keys:4", (), ("padded", "blocks")),
    ],
)
def test_a_plan_without_a_stock_layout_names_those_that_it_has(
    family: str, kind: str, layouts: tuple[str, ...], others: tuple[str, ...], tmp_path: Path
) -> None:
    task = TINY[family]()
    structure = find_structure(task.model, task.example_input, prune=(kind,))
    kept = structure.units
    kept[0], kept[1] = structure.floor[0], structure.groups[1].levels[-2]
    network = shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=0))
    with pytest.raises(ValueError, match="no configuration in transformers") as refused:
        write_pretrained_folder(network, tmp_path / "out", layout="stock")
    for layout in layouts:
        assert f"layout={layout}" in str(refused.value)
        write_pretrained_folder(network, tmp_path / layout, layout=layout)  # type: ignore[arg-type]
    for layout in others:
        assert f"layout={layout}" not in str(refused.value)
        with pytest.raises(ValueError, match=r"no configuration|no layout"):
            write_pretrained_folder(network, tmp_path / layout, layout=layout)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the harness and what it imports
def test_the_evaluation_harness_takes_a_pruned_network(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (pip install lm-eval)")
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    source = model_folder(tmp_path / "dense", "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    network = pruned(model, "neurons", (20, 31))
    rows = [{"question": f"{n}", "choices": ["one", "two"], "answer": n % 2} for n in range(6)]
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "tiny", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.json")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "Q {{question}}",
        "doc_to_choice": "choices", "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    judged = HFLM(pretrained=network, tokenizer=tokenizer, max_length=32)
    results = lm_eval.simple_evaluate(judged, tasks=[task], bootstrap_iters=0)
    expected = []
    for row in rows:
        prompt, likelihoods = f"Q {row['question']}", []
        for choice in row["choices"]:  # type: ignore[attr-defined]
            tokens = torch.tensor([tokenizer(f"{prompt} {choice}").input_ids])
            asked = len(tokenizer(prompt).input_ids)
            with torch.inference_mode():
                logits = network(tokens).logits.log_softmax(-1)[0, asked - 1 : -1]
            likelihoods.append(float(logits.gather(1, tokens[0, asked:, None]).sum()))
        expected.append(int(np.argmax(likelihoods)) == row["answer"])
    assert results is not None
    assert results["results"]["tiny"]["acc,none"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("format_", ["hf", "gguf"])
def test_a_network_of_ones_own_is_told_which_format_takes_it(tmp_path: Path, format_: str) -> None:
    save_network(nn.Linear(3, 2), tmp_path / RUN_FOLDER, architecture=None)
    with pytest.raises(SystemExit, match="of a task of your own; format=apz takes any network"):
        export([str(tmp_path), f"format={format_}"])
    export([str(tmp_path), "format=apz"])
