"""Pruned tiny language models, and what reads their layout by blocks without the code that writes it."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from tests.language_models import TINY
from tests.models import random_ranking

PROMPT = torch.tensor([[1, 5, 9, 13]])


def pruned(family: str, kinds: tuple[str, ...], seed: int = 1, **choices: int) -> nn.Module:
    """A network of a random plan; choices: what all groups of a granularity keep."""
    task = TINY[family]()
    structure, rng = find_structure(task.model, task.example_input, prune=kinds), np.random.default_rng(seed)
    kept = np.array([choices.get(group.granularity, rng.choice(group.levels)) for group in structure.groups])
    return shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=seed))


def same(network: nn.Module, other: nn.Module) -> None:
    with torch.inference_mode():
        for outputs, expected in zip(other(PROMPT)[:1], network(PROMPT)[:1], strict=True):
            assert torch.allclose(outputs, expected, atol=1e-5)
    if hasattr(network, "lm_head"):
        written = [n.generate(PROMPT, max_new_tokens=6, do_sample=False) for n in (network, other)]  # type: ignore[operator]
        assert torch.equal(*written)


def read_blocks(folder: Path) -> nn.Module:
    """An independent reader of the layout by blocks, for Llama: a configuration for each block."""
    settings = json.loads((folder / "config.json").read_text())
    entries = settings.pop("block_configs")
    config = transformers.LlamaConfig(**{k: v for k, v in settings.items() if k != "model_type"})
    return llama_of_blocks(config, entries, safetensors.torch.load_file(folder / "model.safetensors"))


def llama_of_blocks(config: Any, entries: list[dict[str, Any]], tensors: dict[str, Tensor]) -> nn.Module:
    model = transformers.LlamaForCausalLM(config)
    for index, entry in enumerate(entries):
        own, attention, ffn = copy.deepcopy(config), entry["attention"], entry["ffn"]
        assert attention["no_op"] == (attention["num_key_value_heads"] is None)
        assert ffn["no_op"] == (ffn["intermediate_size"] is None)
        own.num_attention_heads, own.num_key_value_heads = (
            attention[name] or getattr(config, name) for name in ("num_attention_heads", "num_key_value_heads")
        )
        own.intermediate_size = ffn["intermediate_size"] or config.intermediate_size
        block = type(model.model.layers[index])(own, index)
        for part in (block.self_attn.o_proj,) * attention["no_op"] + (block.mlp.down_proj,) * ffn["no_op"]:
            nn.init.zeros_(part.weight)
        model.model.layers[index] = block
    lacking, unexpected = model.load_state_dict(tensors, strict=False)
    parts = {"attention": ("self_attn", "input_layernorm"), "ffn": ("mlp", "post_attention_layernorm")}
    without = [
        f"model.layers.{index}.{part}"
        for index, entry in enumerate(entries)
        for kind, names in parts.items()
        for part in names * entry[kind]["no_op"]
    ]
    assert not unexpected
    assert all(name == "lm_head.weight" or any(name.startswith(part) for part in without) for name in lacking)
    model.tie_weights()
    read: nn.Module = model.eval()
    return read
