"""`autoprune export RUN format=gguf`: what it writes, read by transformers, or by a reader of the layout by blocks."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from torch import Tensor

from autoprune.cli.export import export
from autoprune.export.gguf_file import gguf_tensors, rotary_order, split_name, write_gguf
from autoprune.export.network import TOKENIZER_FOLDER, save_network
from tests.export.block_layout import PROMPT, llama_of_blocks, pruned, same
from tests.language_models import TINY
from tests.task.pretrained_models import model_folder, word_tokenizer

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def unturned(weight: Tensor, heads: int) -> Tensor:
    """Row by row: what llama.cpp has at 2i and 2i + 1 of a head is at i and i + width / 2 in transformers."""
    width = len(weight) // heads
    rows = [
        h * width + (2 * i if i < width // 2 else 2 * (i - width // 2) + 1) for h in range(heads) for i in range(width)
    ]
    return weight[rows]


def read_deci(path: Path) -> Any:
    """An independent reader of sizes of every block."""
    said = {name.removeprefix("deci."): value for name, value in metadata(path).items()}
    heads, key_heads, widths = (
        said[name] for name in ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    )
    config = transformers.LlamaConfig(
        vocab_size=said["vocab_size"],
        hidden_size=said["embedding_length"],
        num_hidden_layers=said["block_count"],
        num_attention_heads=max(heads),
        num_key_value_heads=max(key_heads),
        head_dim=said["rope.dimension_count"],
        intermediate_size=max(widths),
        rms_norm_eps=said["attention.layer_norm_rms_epsilon"],
        max_position_embeddings=said["context_length"],
        tie_word_embeddings=True,
    )
    entries = [
        {
            "attention": {"no_op": not k, "num_attention_heads": q or None, "num_key_value_heads": k or None},
            "ffn": {"no_op": not w, "intermediate_size": w or None},
        }
        for q, k, w in zip(heads, key_heads, widths, strict=True)
    ]
    tensors = {}
    for name, tensor in gguf_tensors(path).items():
        if name.startswith("blk."):
            _, block, part, kind = name.split(".")
            turned = {"attn_q": heads, "attn_k": key_heads}.get(part)
            tensors[f"model.layers.{block}.{PARTS[part]}.{kind}"] = (
                tensor if turned is None else unturned(tensor, turned[int(block)])
            )
        else:
            tensors[
                {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
            ] = tensor
    return llama_of_blocks(config, entries, tensors)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kinds", [("heads", "neurons"), ("attention", "ffn"), ("blocks", "heads", "neurons")])
def test_blocks_of_their_own_sizes(kinds: tuple[str, ...], seed: int, tmp_path: Path) -> None:
    network = pruned("llama", kinds, seed)
    written = write_gguf(network, tmp_path / "network.gguf", layout="blocks")
    assert (written.layout, written.zeros) == ("blocks", 0)
    assert metadata(written.path)["general.architecture"] == "deci"
    with torch.inference_mode():
        assert torch.allclose(read_deci(written.path)(PROMPT)[0], network(PROMPT)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kinds", "layout"),
    [
        ("llama", ("heads", "neurons", "attention", "ffn"), "padded"),
        ("mistral", ("blocks",), "stock"),
        ("qwen2", ("neurons",), "padded"),
        ("qwen3", ("neurons",), "padded"),
    ],
)
def test_transformers_reads_it(family: str, kinds: tuple[str, ...], layout: Any, tmp_path: Path) -> None:
    network = pruned(family, kinds)
    written = write_gguf(network, tmp_path / "network.gguf", layout=layout)
    assert written.layout == layout
    # Its reader takes a Qwen 3's width of heads from the class, not from the file.
    width = {"head_dim": metadata(written.path)["qwen3.attention.key_length"]} if family == "qwen3" else {}
    read = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="network.gguf", dtype=torch.float32, **width
    )
    same(network, read.eval())


def test_sixteen_bits_stay_as_they_are(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        network = pruned("mistral", ("neurons",), neuron=20).to(dtype)
        written = write_gguf(network, tmp_path / f"{dtype}.gguf")
        tensors, original = gguf_tensors(written.path), network.state_dict()
        assert torch.equal(tensors["blk.1.ffn_down.weight"], original["model.layers.1.mlp.down_proj.weight"])
        assert tensors["output_norm.weight"].dtype == torch.float32  # llama.cpp wants vectors so


def test_the_vocabulary_goes_with_it(tmp_path: Path) -> None:
    tokenizer = model_folder(tmp_path / "dense", "llama", vocab_size=64)
    with pytest.raises(ValueError, match="259 tokens, the network 64 embeddings"):
        write_gguf(pruned("llama", ("blocks",)), tmp_path / "small.gguf", tokenizer=tokenizer)
    assert not (tmp_path / "small.gguf").exists()
    network = transformers.AutoModelForCausalLM.from_pretrained(
        model_folder(tmp_path / "wide", "llama", vocab_size=262)
    )
    said = metadata(write_gguf(network.eval(), tmp_path / "network.gguf", tokenizer=tokenizer).path)
    tokens, types = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert tokens[:3] == ["<pad>", "<s>", "</s>"]
    assert tokens[259:] == ["[PAD259]", "[PAD260]", "[PAD261]"]
    kind = gguf.TokenType
    assert types == [kind.CONTROL] * 3 + [kind.NORMAL] * 256 + [kind.UNUSED] * 3
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert [said[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")] == [1, 2, 0]


def test_what_gguf_has_no_form_for_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "network.gguf"
    for family, kinds, layout, sentence in [
        ("bert", ("neurons",), "auto", "not written as GGUF; causal language models of these types are: .*llama"),
        ("gemma2", ("neurons",), "padded", "not written as GGUF"),
        ("qwen2", ("neurons",), "blocks", "no qwen2 whose blocks differ in size; export it with layout=padded"),
        ("llama", ("neurons",), "stock", "neurons"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            write_gguf(pruned(family, kinds), path, layout=layout)  # type: ignore[arg-type]
    network: Any = pruned("llama", ("blocks",))
    network.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}
    with pytest.raises(ValueError, match="'linear'"):
        write_gguf(network, path)
    word_tokenizer(tmp_path / "words")
    with pytest.raises(ValueError, match="WordLevel"):
        write_gguf(pruned("llama", ("blocks",)), path, tokenizer=tmp_path / "words")
    assert not path.exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_network(pruned("llama", ("neurons",)), tmp_path / "network", architecture=TINY["llama"]().architecture)
    export([str(tmp_path), "format=gguf"])
    assert "network.gguf: layout=blocks" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="exists already"):
        export([str(tmp_path), "format=gguf"])
    (tmp_path / "network" / TOKENIZER_FOLDER).mkdir()
    with pytest.raises(SystemExit, match=r"tokenizer\.json"):
        export([str(tmp_path), "format=gguf", f"out={tmp_path / 'other.gguf'}"])


def test_rotary_order_there_and_back() -> None:
    weight = torch.arange(24.0).reshape(12, 2)
    assert torch.equal(rotary_order(rotary_order(weight, 3), 3, back=True), weight)
    assert torch.equal(unturned(rotary_order(weight, 3), 3), weight)
    assert rotary_order(weight, 3)[:4, 0].tolist() == [0.0, 4.0, 2.0, 6.0]


def test_names_of_splits() -> None:
    digits, split_bytes = {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": False}
    letters = {"type": "Split", "pattern": {"Regex": r"\w+"}}
    assert split_name({"type": "ByteLevel"}) == "gpt-2"
    assert split_name({"type": "Sequence", "pretokenizers": [digits, {"type": "ByteLevel"}]}) == "smollm"
    assert split_name({"type": "Sequence", "pretokenizers": [letters, split_bytes]}) is None
    assert split_name({"type": "WhitespaceSplit"}) is None
    assert split_name(None) is None
