import copy
import math
import pickle

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.structure.block_sparse import (
    KeyBlocks,
    install,
    install_pattern,
    is_causal,
    key_block_order,
    patterns_of,
)
from autoprune.structure.groups import Pattern
from tests import language_models

TOKENS, BLOCK = 40, 8
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gpt2")
ENCODERS = ("bert", "roberta", "distilbert")
ATTENTION = (
    "LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "SmolLM3Attention", "GPT2Attention",
    "BertSelfAttention", "RobertaSelfAttention", "DistilBertSelfAttention",
)  # fmt: skip

patterns = st.builds(
    KeyBlocks.big_bird, st.integers(1, 70), block=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**31)
)


@given(patterns)
def test_a_row_holds_every_allowed_block_once(pattern: KeyBlocks) -> None:
    for row, keys in enumerate(pattern.order):
        seen = row + 1 if pattern.causal else len(pattern.order)
        assert sorted(keys[:seen]) == list(range(seen))
        assert (keys[seen:] == -1).all()
        assert keys[0] == row


@given(patterns)
def test_levels_are_nested_and_end_with_everything(pattern: KeyBlocks) -> None:
    before = torch.eye(pattern.tokens, dtype=torch.bool)
    for kept in pattern.levels:
        now = pattern.allowed(kept)
        assert not (before & ~now).any(), "what a level shows, the next one shows too; every query sees itself"
        assert not (pattern.causal and now.triu(1).any()), "nobody sees the future"
        before = now
    everything = torch.ones(pattern.tokens, pattern.tokens, dtype=torch.bool)
    assert torch.equal(before, everything.tril() if pattern.causal else everything)


@given(patterns)
def test_pairs_are_those_of_the_mask(pattern: KeyBlocks) -> None:
    counted = [0, *(int(pattern.allowed(kept).sum()) for kept in pattern.levels)]
    assert pattern.kept_pairs.tolist() == counted


@given(patterns)
def test_a_mask_shows_whole_blocks(pattern: KeyBlocks) -> None:
    kept = pattern.levels[len(pattern.levels) // 2]
    seen, blocks = pattern.allowed(kept), pattern.allowed_blocks(kept)
    for query, key in np.ndindex(blocks.shape):
        tile = seen[query * pattern.block :, key * pattern.block :][: pattern.block, : pattern.block]
        assert bool(tile.any()) == blocks[query, key]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
def test_a_causal_order_is_the_beginning_of_a_longer_one(tokens: int, more: int, block: int, seed: int) -> None:
    short = key_block_order(tokens, block=block, causal=True, seed=seed)
    long = key_block_order(tokens + more, block=block, causal=True, seed=seed)
    assert np.array_equal(long[: len(short), : len(short)], short)


def test_the_window_comes_first_and_then_the_first_block() -> None:
    causal, both = (key_block_order(80, block=8, causal=c, seed=0) for c in (True, False))
    assert causal[7, :3].tolist() == [7, 6, 0]
    assert both[7, :4].tolist() == [7, 6, 8, 0]
    assert causal[0, :2].tolist() == [0, -1]
    assert both[9, :3].tolist() == [9, 8, 0]


def test_the_seed_decides_the_rest() -> None:
    orders = [key_block_order(640, block=8, causal=False, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0][20, 4:], orders[0][21, 4:]), "rows differ as well"


@pytest.mark.parametrize("kept", [0, -1, 6])
def test_a_level_that_does_not_exist_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=f"keeps 1 to 5 key blocks, got {kept}"):
        KeyBlocks.big_bird(TOKENS, block=BLOCK, causal=True, seed=0).allowed(kept)


@pytest.mark.parametrize(("tokens", "block"), [(0, 8), (8, 0)])
def test_an_empty_text_or_block_is_refused(tokens: int, block: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        key_block_order(tokens, block=block, causal=True, seed=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_all_blocks_kept_is_dense_and_fewer_are_not(name: str, implementation: str) -> None:
    model, pattern = _model(name, implementation), _pattern(name)
    tokens = _tokens()
    dense = _hidden(model, tokens)
    with install(_attention(model), pattern.allowed(len(pattern.levels))):
        assert torch.allclose(_hidden(model, tokens), dense, atol=1e-6)
    with install(_attention(model), pattern.allowed(1)):
        sparse = _hidden(model, tokens)
        assert not torch.allclose(sparse, dense, atol=1e-4)
        assert torch.allclose(sparse[:, :BLOCK], dense[:, :BLOCK], atol=1e-6) == (name in DECODERS)
    assert torch.equal(_hidden(model, tokens), dense), "the mask is gone when the context is closed"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_outputs_are_those_of_a_softmax_over_the_allowed_keys(name: str, implementation: str) -> None:
    model, allowed = _model(name, implementation), _pattern(name).allowed(2)
    attention = _attention(model)
    parts: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, outputs, at=child: parts.update({at: outputs}))
        for child, module in attention.named_children()
    ]
    hooks.append(attention.register_forward_hook(lambda _, __, outputs: parts.update(whole=outputs[0])))
    if hasattr(model, "rotary_emb"):  # positions that are not rotated, so that the projections are the queries and keys
        hooks.append(model.rotary_emb.register_forward_hook(lambda _, __, out: (out[0] * 0 + 1, out[1] * 0)))
    with install(attention, allowed):
        _hidden(model, _tokens())
    for hook in hooks:
        hook.remove()
    mixed = _by_hand(parts, allowed)
    output = next((getattr(attention, n) for n in ("o_proj", "c_proj", "out_lin") if hasattr(attention, n)), None)
    assert torch.allclose(parts["whole"], mixed if output is None else output(mixed), atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_token_depends_on_no_later_one(name: str) -> None:
    model = _model(name)
    tokens, changed = _tokens(), _tokens()
    changed[:, 19] = (changed[:, 19] + 1) % 50
    with install(_attention(model), _pattern(name).allowed(3)):
        before, after = _hidden(model, tokens), _hidden(model, changed)
    assert torch.equal(before[:, :19], after[:, :19])
    assert not torch.allclose(before[:, 19:], after[:, 19:])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_generating_with_a_cache_is_reading_the_whole_text(name: str) -> None:
    model, pattern = _model(name, causal_lm=True), _pattern(name)
    tokens = _tokens()[:1]
    with install(_attention(model), pattern.allowed(2)), torch.no_grad():
        whole = model(input_ids=tokens, use_cache=False).logits
        first = model(input_ids=tokens[:, :21], use_cache=True)
        rest = [model(input_ids=tokens[:, 21:22], past_key_values=first.past_key_values, use_cache=True)]
        rest += [model(input_ids=tokens[:, 22:30], past_key_values=rest[0].past_key_values, use_cache=True)]
    assert torch.allclose(whole[:, :21], first.logits, atol=1e-5)
    assert torch.allclose(whole[:, 21:30], torch.cat([r.logits for r in rest], dim=1), atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_padding_stays_unseen(name: str, implementation: str) -> None:
    model, pattern = _model(name, implementation), _pattern(name)
    tokens = _tokens()
    shown = torch.ones_like(tokens)
    shown[:, 30:] = 0
    other = tokens.clone()
    other[:, 30:] = 7
    with install(_attention(model), pattern.allowed(2)), torch.no_grad():
        outputs = [model(input_ids=t, attention_mask=shown)[0] for t in (tokens, other)]
        short = model(input_ids=tokens[:, :30])[0]
    assert outputs[0].isfinite().all()
    assert torch.equal(outputs[0][:, :30], outputs[1][:, :30])
    assert torch.allclose(outputs[0][:, :30], short, atol=1e-5), "a shorter text uses the leading part"


def test_two_masks_show_what_both_do() -> None:
    model = _model("bert")
    first, second = (
        KeyBlocks.big_bird(TOKENS, block=BLOCK, causal=False, seed=seed).allowed(4) for seed in (0, 1)
    )  # window, first block, and one at random
    assert not torch.equal(first, second)
    with install(_attention(model), first & second):
        expected = _hidden(model, _tokens())
    with install(_attention(model), first), install(_attention(model), second):
        assert torch.allclose(_hidden(model, _tokens()), expected, atol=1e-6)


def test_the_module_around_an_encoders_attention_takes_masks_as_well() -> None:
    model, allowed = _model("bert"), _pattern("bert").allowed(2)
    with install(_attention(model), allowed):
        expected = _hidden(model, _tokens())
    with install(model.get_submodule("encoder.layer.0.attention"), allowed):
        assert torch.equal(_hidden(model, _tokens()), expected)


def test_a_mask_survives_a_copy_and_a_pipe() -> None:
    model = _model("llama")
    handle = install(_attention(model), _pattern("llama").allowed(1))
    expected = _hidden(model, _tokens())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(_hidden(other, _tokens()), expected)
    handle.remove()
    assert not torch.allclose(_hidden(model, _tokens()), expected, atol=1e-4)


def test_what_a_mask_cannot_be_installed_on_is_refused() -> None:
    causal, both = (KeyBlocks.big_bird(TOKENS, block=BLOCK, causal=c, seed=0).allowed(2) for c in (True, False))
    with pytest.raises(ValueError, match="LlamaAttention"):
        install(_attention(_model("llama")), both)
    install(_attention(_model("bert")), both).remove()
    with pytest.raises(ValueError, match="Linear is no attention module of transformers"):
        install(nn.Linear(3, 3), causal)
    with pytest.raises(ValueError, match="LlamaMLP"):
        install(_model("llama").layers[0].mlp, causal)
    with pytest.raises(ValueError, match=r"\[T, T\].*torch.float32 \[40, 40\]"):
        install(_attention(_model("llama")), causal.float())
    with pytest.raises(ValueError, match="hides a token from itself"):
        install(_attention(_model("llama")), torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="runs attention 'flex_attention'"):
        install(_attention(_model("llama", "flex_attention")), causal)


def test_a_text_that_is_too_long_is_refused() -> None:
    model = _model("llama")
    short = KeyBlocks.big_bird(TOKENS - 1, block=BLOCK, causal=True, seed=0).allowed(2)
    with install(_attention(model), short), pytest.raises(ValueError, match="40 tokens, and the sparse attent"):
        _hidden(model, _tokens())


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_who_is_causal_says_so(name: str) -> None:
    assert is_causal(_attention(_model(name))) == (name in DECODERS)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_causal_pattern_goes_on_in_longer_texts(name: str) -> None:
    short, long = _model(name), _model(name)
    for model, tokens in ((short, 12), (long, TOKENS)):
        install_pattern(_attention(model), Pattern("", tokens, BLOCK, True, 3), 2)
    assert torch.allclose(_hidden(short, _tokens()[:, :12]), _hidden(long, _tokens()[:, :12]), atol=1e-6)
    assert torch.allclose(_hidden(short, _tokens()), _hidden(long, _tokens()), atol=1e-6)


def test_the_pattern_of_an_encoder_ends_with_its_tokens() -> None:
    model = _model("bert")
    install_pattern(_attention(model), Pattern("", TOKENS - 1, BLOCK, False, 0), 2)
    with pytest.raises(ValueError, match="the text has 40 tokens, and the sparse attention is for 39"):
        _hidden(model, _tokens())


def test_installed_patterns_are_found_by_name() -> None:
    model, pattern = _model("llama"), Pattern("elsewhere", TOKENS, BLOCK, True, 1)
    assert patterns_of(model) == []
    handle = install_pattern(model.get_submodule("layers.1.self_attn"), pattern, 3)
    assert patterns_of(model) == [(Pattern("layers.1.self_attn", TOKENS, BLOCK, True, 1), 3)]
    handle.remove()
    assert patterns_of(model) == []
    with (
        install(_attention(model), _pattern("llama").allowed(2)),
        pytest.raises(ValueError, match=r"layers\.0\.self_attn"),
    ):
        patterns_of(model)


def test_patterns_for_more_tokens_than_there_are_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="a pattern for 65 tokens is for more than the 64 positions"):
        install_pattern(_attention(_model("bert")), Pattern("", 65, BLOCK, False, 0), 2)


def _model(name: str, implementation: str = "sdpa", *, causal_lm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    positions = {"n_positions" if name == "gpt2" else "max_position_embeddings": 64}
    changes = positions | ({"head_dim": 8} if name == "qwen3" else {})
    config = transformers.AutoConfig.for_model(
        name, **{**language_models.CAUSAL, **language_models.ENCODERS}[name] | changes
    )
    make = transformers.AutoModelForCausalLM if causal_lm else transformers.AutoModel
    model = make.from_config(config, attn_implementation=implementation).eval()
    with torch.no_grad():  # so that attention is far from uniform
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    assert isinstance(model, nn.Module)
    return model


def _attention(model: nn.Module) -> nn.Module:
    return next(module for module in model.modules() if type(module).__name__ in ATTENTION)


def _pattern(name: str) -> KeyBlocks:
    return KeyBlocks.big_bird(TOKENS, block=BLOCK, causal=name in DECODERS, seed=0)


def _tokens() -> Tensor:
    return torch.randint(3, 50, (2, TOKENS), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _hidden(model: nn.Module, tokens: Tensor) -> Tensor:
    hidden = model(input_ids=tokens)[0]
    assert isinstance(hidden, Tensor)
    return hidden


def _by_hand(parts: dict[str, Tensor], allowed: Tensor) -> Tensor:
    """[N, T, features]: softmax over the allowed keys, from the outputs of the module's own projections."""
    if "c_attn" in parts:
        query, key, value = parts["c_attn"].split(32, dim=2)
    else:
        names = [
            ("q_norm", "q_proj", "query", "q_lin"),
            ("k_norm", "k_proj", "key", "k_lin"),
            ("v_proj", "value", "v_lin"),
        ]
        query, key, value = (next(parts[n] for n in some if n in parts) for some in names)
    heads = [part.reshape(2, TOKENS, -1, 8).transpose(1, 2) for part in (query, key, value)]
    query, key, value = (part.repeat_interleave(4 // part.shape[1], dim=1) for part in heads)
    scores = query @ key.transpose(2, 3) / math.sqrt(8)
    exponentials = scores.exp() * allowed
    return (exponentials / exponentials.sum(dim=3, keepdim=True) @ value).transpose(1, 2).reshape(2, TOKENS, 32)
