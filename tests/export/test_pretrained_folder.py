"""`autoprune export RUN format=hf`: what it writes, read by transformers, or by a reader of the layout by blocks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from autoprune.cli.export import export
from autoprune.export.network import TOKENIZER_FOLDER, save_network
from autoprune.export.pretrained_folder import copy_tokenizer, write_pretrained_folder
from tests.export.block_layout import PROMPT, pruned, read_blocks, same
from tests.language_models import TINY
from tests.task.pretrained_models import word_tokenizer


@pytest.mark.parametrize(
    ("family", "kinds", "choices"),
    [
        ("llama", ("blocks", "neurons"), {"neuron": 20}),
        ("qwen2", ("heads", "neurons"), {"head": 1, "neuron": 11}),
        ("gpt2", ("neurons",), {"neuron": 7}),
        ("electra", ("neurons",), {"neuron": 9}),
    ],
)
def test_stock(family: str, kinds: tuple[str, ...], choices: dict[str, int], tmp_path: Path) -> None:
    network = pruned(family, kinds, **choices)
    written = write_pretrained_folder(network, tmp_path / "out")
    assert written.layout == "stock"
    assert written.zeros == 0
    same(network, type_of(network).from_pretrained(written.path).eval())


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("llama", ("heads", "neurons", "attention", "ffn")),
        ("qwen3", ("heads", "queries", "neurons")),
        ("gemma2", ("heads", "neurons", "attention", "ffn")),
        ("gpt2", ("heads", "neurons", "attention")),
        ("bert", ("heads", "neurons")),
    ],
)
def test_padded(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    network = pruned(family, kinds)
    written = write_pretrained_folder(network, tmp_path / "out", layout="padded")
    assert written.zeros > 0
    assert written.params - written.zeros == sum(p.numel() for p in network.parameters())
    same(network, type_of(network).from_pretrained(written.path).eval())


@pytest.mark.parametrize("kinds", [("heads", "neurons"), ("attention", "ffn"), ("blocks", "heads", "neurons")])
@pytest.mark.parametrize("seed", [1, 2])
def test_blocks(kinds: tuple[str, ...], seed: int, tmp_path: Path) -> None:
    network = pruned("llama", kinds, seed)
    written = write_pretrained_folder(network, tmp_path / "out", layout="blocks")
    assert written.layout == "blocks"
    with torch.inference_mode():
        assert torch.allclose(read_blocks(written.path)(PROMPT)[0], network(PROMPT)[0], atol=1e-5)


def type_of(network: nn.Module) -> Any:
    return transformers.AutoModelForCausalLM if hasattr(network, "lm_head") else transformers.AutoModel


def test_the_command_writes_network_and_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = pruned("llama", ("heads", "neurons"))
    save_network(network, tmp_path / "network", architecture=TINY["llama"]().architecture)
    word_tokenizer(tmp_path / "network" / TOKENIZER_FOLDER)
    export([str(tmp_path), "format=hf"])
    assert "layout=blocks" in capsys.readouterr().out
    export([str(tmp_path), "format=hf", "layout=padded", f"out={tmp_path / 'padded'}"])
    assert "zeros that fill up" in capsys.readouterr().out
    same(network, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "padded").eval())
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "padded")("w5 w9").input_ids
    for wrong, sentence in [
        (["format=hf"], "exists already"),
        (["format=hf", "layout=stock", f"out={tmp_path / 'x'}"], "neurons"),
        (["format=apz", "layout=stock"], "is for format=hf"),
    ]:
        with pytest.raises(SystemExit, match=sentence):
            export([str(tmp_path), *wrong])


def test_encoders_have_no_layout_by_blocks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no layout with sizes of every block"):
        write_pretrained_folder(pruned("bert", ("heads",)), tmp_path / "out", layout="blocks")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_brings_no_configuration_of_the_dense_network(tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "source")
    dense = {"model_type": "llama", "hidden_size": 32}
    (tmp_path / "source" / "config.json").write_text(json.dumps(dense))
    (tmp_path / "source" / "model.safetensors").write_bytes(b"")
    copy_tokenizer(tmp_path / "source", tmp_path / "named")
    assert {"config.json", "model.safetensors"}.isdisjoint(file.name for file in (tmp_path / "named").iterdir())
    (tmp_path / "source" / "tokenizer_config.json").unlink()
    copy_tokenizer(tmp_path / "source", tmp_path / "unnamed")
    assert json.loads((tmp_path / "unnamed" / "config.json").read_text()) == {"model_type": "llama"}
