"""One tiny language model per family as a task in milliseconds: random weights and tokens, no tokenizer, no download.

>>> task = TINY["llama"]()
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from autoprune.task import huggingface
from autoprune.task.language import CausalForward, EncoderForward, embeddings, token_accuracy, token_loss
from autoprune.task.task import Architecture, Role, Roles, Task

VOCABULARY, HIDDEN, FFN, HEADS, KV_HEADS = 64, 32, 48, 4, 2
TOKENS = 16
POSITIONS = (7, 9, 11, 13, 15)  # where causal models are judged
PASSAGES = 24  # that encoders are asked for
SAMPLES = {"train": 32, "calibration": 24, "search": 40, "test": 20}

TOKEN_IDS = {"bos_token_id": 1, "eos_token_id": 2}
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
DECODER = SHAPE | TOKEN_IDS | {"num_key_value_heads": KV_HEADS}

CAUSAL: Mapping[str, dict[str, Any]] = {
    "llama": {**DECODER, "num_hidden_layers": 3, "tie_word_embeddings": True},
    "mistral": {**DECODER, "num_hidden_layers": 2, "tie_word_embeddings": False, "sliding_window": None},
    "qwen2": {**DECODER, "num_hidden_layers": 2, "tie_word_embeddings": True},
    "qwen3": {**DECODER, "num_hidden_layers": 2, "tie_word_embeddings": False, "head_dim": 16},
    "smollm3": {**DECODER, "num_hidden_layers": 2, "tie_word_embeddings": True, "no_rope_layers": [1, 0]},
    "gemma": {**DECODER, "num_hidden_layers": 2, "head_dim": 8},
    "gemma2": {
        **DECODER, "num_hidden_layers": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma3_text": {
        **DECODER, "num_hidden_layers": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "granite": {**DECODER, "num_hidden_layers": 2, "residual_multiplier": 0.7},
    "starcoder2": {**DECODER, "num_hidden_layers": 2, "sliding_window": None},
    "mixtral": {
        **DECODER, "num_hidden_layers": 2, "sliding_window": None, "num_local_experts": 4, "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": {  # one block without experts, and experts' weights that do not add up to one
        **DECODER, "num_hidden_layers": 2, "head_dim": 8, "num_experts": 6, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "mlp_only_layers": [0], "norm_topk_prob": False, "tie_word_embeddings": True,
    },
    "gpt2": {
        "vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_inner": FFN, "n_head": HEADS, "n_layer": 2, "n_positions": 32,
        **TOKEN_IDS,
    },
}  # fmt: skip
ENCODERS: Mapping[str, dict[str, Any]] = {
    "bert": {**SHAPE, "num_hidden_layers": 3},
    "roberta": {**SHAPE, "num_hidden_layers": 2, **TOKEN_IDS, "pad_token_id": 1, "bos_token_id": 0},
    "xlm-roberta": {**SHAPE, "num_hidden_layers": 2, **TOKEN_IDS, "pad_token_id": 1, "bos_token_id": 0},
    "camembert": {**SHAPE, "num_hidden_layers": 2, **TOKEN_IDS, "pad_token_id": 1, "bos_token_id": 0},
    "electra": {**SHAPE, "num_hidden_layers": 2, "embedding_size": 16},
    "distilbert": {
        "vocab_size": VOCABULARY, "dim": HIDDEN, "hidden_dim": FFN, "n_heads": HEADS, "n_layers": 2,
        "max_position_embeddings": 32, "pad_token_id": 0,
    },
}  # fmt: skip


def causal_task(family: str, *, seed: int = 0, **changes: Any) -> Task:
    """The tiny causal model of that family; `changes` are of its configuration."""
    config = config_text(family, {**CAUSAL[family], **changes})
    generator = torch.Generator().manual_seed(seed + 1)
    forward = CausalForward(POSITIONS)
    data = {}
    for name, samples in SAMPLES.items():
        windows = torch.randint(3, VOCABULARY, (samples, TOKENS + 1), generator=generator)
        targets = windows[:, [position + 1 for position in forward.positions]]
        data[name] = Role(windows[:, :-1].contiguous(), targets, tuple(f"{name}:{i}" for i in range(samples)))
    return Task(
        randomised(huggingface.causal_lm(config), seed=seed),
        data["train"].inputs[:1],
        Roles(**data),
        metric=token_accuracy,
        name=f"tiny_{family}",
        loss=token_loss,
        budget="params:0.75",
        architecture=Architecture("autoprune.task.huggingface.causal_lm", {"config": config}),
        forward=forward,
        block=1,
        prune=("heads", "neurons"),
    )


def encoder_task(family: str, *, seed: int = 0, **changes: Any) -> Task:
    """The tiny encoder of that family, which finds passages by altered ones; `changes` are of its configuration."""
    config = config_text(family, {**ENCODERS[family], **changes})
    model, pad = randomised(huggingface.encoder(config), seed=seed), int(ENCODERS[family]["pad_token_id"])
    generator = torch.Generator().manual_seed(seed + 1)
    passages = padded(torch.randint(3, VOCABULARY, (PASSAGES, TOKENS), generator=generator), pad, generator)
    with torch.inference_mode():
        bank = embeddings(model, passages, pad=pad)
    data = {}
    for name, samples in SAMPLES.items():
        targets = torch.randint(PASSAGES, (samples,), generator=generator)
        asked = passages[targets].clone()
        changed = torch.rand(asked.shape, generator=generator) < 0.2
        asked[changed & (asked != pad)] = 3
        data[name] = Role(asked, targets, tuple(f"{name}:{i}" for i in range(samples)))
    return Task(
        model,
        data["train"].inputs[:1],
        Roles(**data),
        name=f"tiny_{family}",
        budget="params:0.75",
        architecture=Architecture("autoprune.task.huggingface.encoder", {"config": config}),
        forward=EncoderForward(bank.clone(), pad),
        block=1,
        prune=("heads", "neurons"),
    )


EVERY_KIND = ("llama", "gpt2", "bert")  # of each way in which weights and blocks are laid out one family
TINY: Mapping[str, Callable[[], Task]] = {
    **{family: partial(causal_task, family) for family in CAUSAL},
    **{family: partial(encoder_task, family) for family in ENCODERS},
}


def config_text(family: str, settings: Mapping[str, Any]) -> str:
    """A configuration as JSON text, as an Architecture carries it."""
    text: str = transformers.AutoConfig.for_model(family, **settings).to_json_string()
    return text


def randomised(model: nn.Module, *, seed: int) -> nn.Module:
    """The model with weights that make every layer matter: matrices keep variances, norms and biases are random too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                std = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
                parameter.normal_(0, std, generator=generator)
    return model


def padded(tokens: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """The windows [N, T] cut to random lengths of at least half a window."""
    lengths = torch.randint(tokens.shape[1] // 2, tokens.shape[1] + 1, (len(tokens), 1), generator=generator)
    return torch.where(torch.arange(tokens.shape[1]) < lengths, tokens, pad)
