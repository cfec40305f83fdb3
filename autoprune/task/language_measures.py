"""What a final report says of a language model: perplexity, cache, speed and text; of an encoder: agreement."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.default_metrics import IGNORED
from autoprune.task.language import EncoderForward, embeddings
from autoprune.task.pretrained import TOKENIZER_FILES, quiet

Measures = dict[str, float | str]
BATCH = 4  # windows whose logits over the whole vocabulary are held at once
REPEATS = 3  # timings of which the median counts, after one that doesn't


@dataclass(frozen=True, slots=True, eq=False)
class LanguageMeasures:
    """A causal language model → its measures by name, for `Task.measure`.

    >>> LanguageMeasures(folder, {"bible": windows}, ("In the beginning",), new_tokens=40)(model)["perplexity_bible"]
    29.0
    """

    tokenizer: Path
    """A folder of tokenizer files."""
    texts: Mapping[str, Tensor]
    """Name → windows [N, T + 1] of tokens, int64; each token but the first is predicted from all before it in its
    window."""
    prompts: tuple[str, ...]
    """Beginnings of texts that the network continues."""
    new_tokens: int
    """By how many likeliest tokens, fewer where it ends the text or has no positions left."""
    speed: bool = True
    """Whether to measure speeds, on the first window of the first text, with the threads that torch has."""
    judged: Mapping[str, Tensor] = field(default_factory=dict)
    """Text → which tokens of its windows perplexity is of, bool [N, T + 1]; of a text that is not there, all."""

    def __post_init__(self) -> None:
        if self.new_tokens < 1:
            raise ValueError(f"new_tokens must be at least 1, got {self.new_tokens}")
        if not self.texts:
            raise ValueError("language measures need at least one held-out text, as perplexity is of a text")
        for name, windows in self.texts.items():
            if windows.ndim != 2 or not len(windows) or windows.shape[1] < 2:
                raise ValueError(
                    f"text {name!r} must be token windows [N, T + 1] with T ≥ 1, got {list(windows.shape)}"
                )

    @torch.inference_mode()
    def __call__(self, network: nn.Module) -> Measures:
        measures: Measures = {
            f"perplexity_{name}": perplexity(network, text, judged=self.judged.get(name))
            for name, text in self.texts.items()
        }
        window = next(iter(self.texts.values()))[:1, :-1].to(_device(network))
        measures["kv_cache_bytes_per_token"] = cache_bytes_per_token(network, window)
        measures |= size_of(network)
        if self.speed:
            measures |= _speeds(network, window, tokens=self.new_tokens)
        if self.prompts:
            tokenizer = load_tokenizer(self.tokenizer)
            for i, prompt in enumerate(self.prompts, start=1):
                beginning = tokenizer(prompt).input_ids[: _positions(network) // 2]  # of a model with few positions
                prompt = tokenizer.decode(beginning, skip_special_tokens=True)
                measures[f"sample_{i}"] = continuation(network, tokenizer, prompt, tokens=self.new_tokens)
        return measures


@dataclass(frozen=True, slots=True, eq=False)
class EncoderMeasures:
    """An encoder → its measures by name, for `Task.measure`."""

    forward: EncoderForward
    """Holds the bank of passages."""
    inputs: Tensor
    """Padded token windows that nothing else has seen [N, T]."""
    targets: Tensor
    """Which passage of the bank each asks for [N]."""
    dense: Tensor
    """The dense network's unit embeddings of the windows [N, hidden]."""

    @classmethod
    def of(cls, model: nn.Module, forward: EncoderForward, *, inputs: Tensor, targets: Tensor) -> "EncoderMeasures":
        """Those that compare with the dense `model`.

        Args:
            model: The dense network, in eval mode.
            forward: (network, inputs) → outputs: how the network is called.
            inputs: What is read.
            targets: What outputs are compared with.
        """
        return cls(forward, inputs, targets, _embedded(model, inputs, pad=forward.pad))

    def __call__(self, network: nn.Module) -> Measures:
        embedded = _embedded(network, self.inputs, pad=self.forward.pad)
        nearest = (embedded @ self.forward.bank.float().cpu().T).argmax(dim=-1)
        with torch.inference_mode():
            one = self.inputs[:1].to(_device(network))
            seconds = _seconds(lambda: embeddings(network, one, pad=self.forward.pad))
        return {
            "cosine_to_dense": (embedded * self.dense).sum(dim=-1).mean().item(),
            "retrieval_accuracy": (nearest == self.targets.cpu()).float().mean().item(),
            "windows_per_s": 1 / seconds,
            "threads": torch.get_num_threads(),
            **size_of(network),
        }


@torch.inference_mode()
def perplexity(network: nn.Module, windows: Tensor, *, judged: Tensor | None = None) -> float:
    """exp of the mean negative log-likelihood over positions of token windows [N, T + 1], computed in float32.

    Args:
        network: The network.
        windows: Tokens [N, T + 1].
        judged: Which of the tokens count, bool [N, T + 1], the first ones never; None: all.
    """
    nats, device = 0.0, _device(network)
    following = windows[:, 1:] if judged is None else windows[:, 1:].masked_fill(~judged[:, 1:], IGNORED)
    for batch, targets in zip(windows.split(BATCH), following.split(BATCH), strict=True):
        logits = network(input_ids=batch[:, :-1].to(device), use_cache=False).logits.float()
        nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten().to(device), reduction="sum").item()
    return float(torch.tensor(nats / int((following != IGNORED).sum()), dtype=torch.float64).exp())


@torch.inference_mode()
def cache_bytes_per_token(network: nn.Module, window: Tensor) -> float:
    """Bytes of keys and values, over all layers, per token of the window [1, T] that was read; 0 without attention.

    Args:
        network: The network.
        window: Tokens [1, T].
    """
    layers = _read(network, window)[1].layers
    held = [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in held)) / window.shape[1]


def size_of(network: nn.Module) -> Measures:
    """Parameters, tied ones once, and their bytes."""
    parameters = list(network.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    }


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer whose files lie in `folder`: nothing is downloaded, no code that came with it is run."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"{folder} holds no tokenizer: there is none of {', '.join(TOKENIZER_FILES)} in it")
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@torch.inference_mode()
def continuation(network: nn.Module, tokenizer: Any, prompt: str, *, tokens: int) -> str:
    """The text that the network adds to the prompt: at most `tokens` tokens, the likeliest each, by its own `generate`.

    Raises ValueError where the prompt is empty or leaves no position.

    Args:
        network: A decoder.
        tokenizer: Turns text into tokens, and back.
        prompt: The text that is gone on with.
        tokens: How many tokens are added.
    """
    written: Tensor = tokenizer(prompt, return_tensors="pt").input_ids.to(_device(network)).long()
    read = written.shape[-1]
    if not read:
        raise ValueError("the prompt is empty: there is nothing to continue")
    room = _positions(network) - read
    if room < 1:
        raise ValueError(f"the prompt has {read} tokens, but the network {_positions(network)} positions; shorten it")
    ends = network.generation_config.eos_token_id  # type: ignore[union-attr]
    longer = network.generate(  # type: ignore[operator]
        input_ids=written,
        attention_mask=torch.ones_like(written),
        max_new_tokens=min(tokens, room),
        do_sample=False,
        use_cache=_caches(network, written),
        pad_token_id=ends[0] if isinstance(ends, list) else ends,
    )
    # Decoded whole and cut, as many tokenizers decide by the word before whether a space comes first.
    before, whole = (str(tokenizer.decode(part[0], skip_special_tokens=True)) for part in (written, longer))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(longer[0, read:], skip_special_tokens=True))


def _speeds(network: nn.Module, window: Tensor, *, tokens: int) -> Measures:
    """Tokens per second of reading a window [1, T] and of writing after it, one text at a time."""
    tokens = min(tokens, _positions(network) - window.shape[1])
    speeds: Measures = {"prefill_tokens_per_s": window.shape[1] / _seconds(lambda: _read(network, window))}
    speeds["threads"] = torch.get_num_threads()
    if tokens > 0 and _caches(network, window):
        rates = [_writing_rate(network, window, tokens=tokens) for _ in range(1 + REPEATS)]
        speeds["decode_tokens_per_s"] = median(rates[1:])
    return speeds


def _writing_rate(network: nn.Module, window: Tensor, *, tokens: int) -> float:
    following, cache = _read(network, window)
    start = time.perf_counter()
    for _ in range(tokens):
        logits = network(input_ids=following, past_key_values=cache, use_cache=True).logits
        following = logits[:, -1:].argmax(dim=-1)
    following.tolist()  # waits for an accelerator
    return tokens / (time.perf_counter() - start)


def _read(network: nn.Module, window: Tensor) -> tuple[Tensor, Any]:
    """The likeliest next token [1, 1], and the cache that the window has left."""
    answer = network(input_ids=window, use_cache=True, logits_to_keep=1)
    following: Tensor = answer.logits[:, -1:].argmax(dim=-1)
    following.tolist()
    return following, answer.past_key_values


def _caches(network: nn.Module, window: Tensor) -> bool:
    """Whether the network keeps keys and values; one whose attention is passed over everywhere keeps none.

    Such a one would not know from its cache how far it has come.
    """
    return bool(_read(network, window)[1].get_seq_length() == window.shape[-1])


def _seconds(of: Callable[[], object]) -> float:
    """The median of a few timings after one that doesn't count."""
    timings = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        of()
        timings.append(time.perf_counter() - start)
    return median(timings[1:])


@torch.inference_mode()
def _embedded(network: nn.Module, inputs: Tensor, *, pad: int) -> Tensor:
    device = _device(network)
    return torch.cat([embeddings(network, batch.to(device), pad=pad).float().cpu() for batch in inputs.split(32)])


def _positions(network: nn.Module) -> int:
    """How many tokens the network can tell apart by their place."""
    return int(network.config.max_position_embeddings)  # type: ignore[union-attr,arg-type]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
