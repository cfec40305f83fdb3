import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.edit import number_caches
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.language import EncoderForward
from autoprune.task.language_measures import (
    EncoderMeasures,
    LanguageMeasures,
    cache_bytes_per_token,
    continuation,
    load_tokenizer,
    perplexity,
    size_of,
)
from tests.language_models import CAUSAL, ENCODERS, HIDDEN, TINY, TOKENS, VOCABULARY, causal_task
from tests.task.pretrained_models import word_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def windows(count: int = 6, *, tokens: int = TOKENS) -> Tensor:
    return torch.randint(3, VOCABULARY, (count, tokens + 1), generator=torch.Generator().manual_seed(5))


def without_attention(network: nn.Module, *blocks: int) -> nn.Module:
    smaller = copy.deepcopy(network)
    for block in blocks:
        smaller.set_submodule(f"model.layers.{block}.self_attn", Skipped("zeros, None"))
    number_caches(smaller)
    return smaller


@pytest.mark.parametrize("family", CAUSAL)
def test_every_family_has_all_measures(family: str, tokenizer: Path) -> None:
    measure = LanguageMeasures(tokenizer, {"a": windows(), "b": windows(2)}, ("w4 w5", "w6"), new_tokens=3)
    measures = measure(TINY[family]().model)
    assert measures.keys() == {
        "perplexity_a", "perplexity_b", "kv_cache_bytes_per_token", "prefill_tokens_per_s", "decode_tokens_per_s",
        "threads", "parameters", "bytes", "sample_1", "sample_2",
    }  # fmt: skip
    assert all(value > 0 for value in measures.values() if not isinstance(value, str))
    assert all(isinstance(measures[f"sample_{i}"], str) for i in (1, 2))


@pytest.mark.parametrize("family", CAUSAL)
def test_perplexity_is_that_of_every_next_token(family: str) -> None:
    model, text = TINY[family]().model, windows(7)
    with torch.no_grad():
        likelihoods = [
            model(input_ids=window[None, :-1]).logits[0].log_softmax(-1).gather(1, window[1:, None]) for window in text
        ]
    assert perplexity(model, text) == pytest.approx(torch.cat(likelihoods).mean().neg().exp().item(), rel=1e-5)


def test_a_network_that_knows_nothing_has_the_vocabularys_perplexity() -> None:
    model = causal_task("mistral").model  # whose output layer is its own
    nn.init.zeros_(model.lm_head.weight)  # type: ignore[union-attr,arg-type]
    assert perplexity(model, windows()) == pytest.approx(VOCABULARY, rel=1e-5)


def test_a_hopeless_network_has_infinite_perplexity_and_no_error() -> None:
    model = causal_task("mistral").model
    model.lm_head.weight.data *= 1e6  # type: ignore[union-attr,operator]
    assert perplexity(model, windows()) == math.inf


def test_the_cache_is_that_of_the_key_heads_that_are_left() -> None:
    """Keys and values of 2 heads of 8 features in 3 blocks at 4 bytes; half of them where one head goes."""
    model, window = causal_task("llama").model, windows(1)[:, :-1]
    assert cache_bytes_per_token(model, window) == 2 * 2 * 8 * 3 * 4
    assert cache_bytes_per_token(without_attention(model, 1), window) == 2 * 2 * 8 * 2 * 4
    assert cache_bytes_per_token(without_attention(model, 0, 1, 2), window) == 0
    assert cache_bytes_per_token(TINY["gpt2"]().model, window) == 2 * HIDDEN * 2 * 4


def test_parameters_are_counted_once_where_they_are_tied() -> None:
    model = causal_task("llama").model
    distinct = {id(p): p for p in model.parameters()}
    assert size_of(model)["parameters"] == sum(p.numel() for p in distinct.values())
    assert size_of(model.bfloat16())["bytes"] == 2 * sum(p.numel() for p in distinct.values())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mixtral"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_continuation_is_the_likeliest_token_each_time(family: str, gone: bool, tokenizer: Path) -> None:
    """With and without its first block, whose cache is the one that says how far the text has come."""
    model, words = TINY[family]().model, load_tokenizer(tokenizer)
    model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    if gone:
        model.set_submodule(f"{'transformer.h' if family == 'gpt2' else 'model.layers'}.0", Skipped("input"))
        number_caches(model)
    tokens = torch.tensor([[4, 9, 30]])
    with torch.no_grad():
        for _ in range(8):
            following = model(input_ids=tokens, use_cache=False).logits[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, following], dim=1)
    expected = "".join(f" w{i}" for i in tokens[0, 3:].tolist())
    assert continuation(model, words, "w4 w9 w30", tokens=8) == expected


def test_a_network_without_any_attention_writes_and_measures(tokenizer: Path) -> None:
    model = without_attention(causal_task("llama").model, 0, 1, 2)
    measures = LanguageMeasures(tokenizer, {"a": windows()}, ("w4",), new_tokens=4)(model)
    assert measures["kv_cache_bytes_per_token"] == 0
    assert "decode_tokens_per_s" not in measures
    assert "sample_1" in measures


def test_a_text_ends_where_positions_do(tokenizer: Path) -> None:
    """GPT-2 has learnt an embedding for each of 32 positions."""
    model, words = TINY["gpt2"]().model, load_tokenizer(tokenizer)
    model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    prompt = " ".join(["w7"] * 30)
    assert len(continuation(model, words, prompt, tokens=40).split()) == 2
    with pytest.raises(ValueError, match="32 tokens, but the network 32 positions"):
        continuation(model, words, f"{prompt} w7 w7", tokens=40)
    with pytest.raises(ValueError, match="prompt is empty"):
        continuation(model, words, " ", tokens=40)


def test_measuring_leaves_the_network_alone(tokenizer: Path) -> None:
    task = causal_task("llama")
    before, inputs = task.model.state_dict(), task.data.test.inputs
    with torch.no_grad():
        expected = task.forward(task.model, inputs)
        LanguageMeasures(tokenizer, {"a": windows()}, ("w4",), new_tokens=2)(task.model)
        assert torch.equal(task.forward(task.model, inputs), expected)
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())
    F.cross_entropy(task.forward(task.model, inputs).flatten(0, 1), task.data.test.targets.flatten()).backward()


def test_measures_can_be_sent_to_another_process(tokenizer: Path) -> None:
    measure = LanguageMeasures(tokenizer, {"a": windows()}, ("w4",), new_tokens=2, speed=False)
    model = causal_task("llama").model
    assert pickle.loads(pickle.dumps(measure))(model) == measure(model)


@pytest.mark.parametrize(
    ("texts", "tokens", "message"),
    [
        ({}, 3, "at least one held-out text"),
        ({"a": torch.zeros(3, 1, dtype=torch.long)}, 3, r"'a'.*\[N, T \+ 1\]"),
        ({"a": torch.zeros(0, 5, dtype=torch.long)}, 3, "'a' must be token windows"),
        ({"a": torch.zeros(3, 5, dtype=torch.long)}, 0, "new_tokens must be at least 1, got 0"),
    ],
)
def test_senseless_measures_are_refused(texts: dict[str, Tensor], tokens: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageMeasures(tmp_path, texts, (), new_tokens=tokens)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_agrees_with_itself(family: str) -> None:
    task = TINY[family]()
    assert isinstance(task.forward, EncoderForward)
    role = task.data.test
    measure = EncoderMeasures.of(task.model, task.forward, inputs=role.inputs, targets=role.targets)
    measures = pickle.loads(pickle.dumps(measure))(task.model)
    assert measures.keys() == {
        "cosine_to_dense", "retrieval_accuracy", "windows_per_s", "threads", "parameters", "bytes",
    }  # fmt: skip
    assert measures["cosine_to_dense"] == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        assert measures["retrieval_accuracy"] == pytest.approx(
            task.metric(task.forward(task.model, role.inputs), role.targets)
        )


def test_another_encoder_agrees_less() -> None:
    task, other = TINY["bert"](), TINY["bert"]().model
    assert isinstance(task.forward, EncoderForward)
    for parameter in other.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    role = task.data.test
    measure = EncoderMeasures.of(task.model, task.forward, inputs=role.inputs, targets=role.targets)
    cosine = measure(other)["cosine_to_dense"]
    assert isinstance(cosine, float)
    assert cosine < 0.9
