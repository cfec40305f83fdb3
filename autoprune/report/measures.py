"""What a task measures of its networks beside accuracy and cost, in words: numbers side by side, texts below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.report.contents import NetworkReport
from autoprune.report.wording import DASH, count, number, percent, size


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """One measure of every network; a dash where it was not measured."""

    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What every network wrote to the same prompt: (network, text)."""

    title: str
    texts: tuple[tuple[NetworkReport, str], ...]


def measured(networks: Sequence[NetworkReport]) -> tuple[NetworkReport, ...]:
    """The networks of which a task has measured something."""
    return tuple(network for network in networks if network.measures)


def rows(networks: Sequence[NetworkReport]) -> list[MeasureRow]:
    """The numbers, in the order in which they were measured; texts are left to `samples`."""
    return [
        MeasureRow(_title(key), tuple(_shown(key, network.measures.get(key)) for network in networks))
        for key in _keys(networks)
        if not _is_text(key, networks)
    ]


def samples(networks: Sequence[NetworkReport]) -> list[Sample]:
    """The texts; networks whose plan is an earlier one's wrote the same and are left out."""
    return [
        Sample(
            _title(key),
            tuple((n, str(n.measures[key])) for n in networks if key in n.measures and not n.same_as),
        )
        for key in _keys(networks)
        if _is_text(key, networks)
    ]


def _keys(networks: Sequence[NetworkReport]) -> list[str]:
    return list(dict.fromkeys(key for network in networks for key in network.measures))


def _is_text(key: str, networks: Sequence[NetworkReport]) -> bool:
    return any(isinstance(network.measures.get(key), str) for network in networks)


def _title(key: str) -> str:
    for start, words in NUMBERED.items():
        if key.startswith(start):
            return f"{words} {key.removeprefix(start)}"
    return TITLES[key][0] if key in TITLES else key.replace("_", " ")


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return DASH
    if key in TITLES:
        return TITLES[key][1](value)
    return f"{value:.1f}" if key.startswith("perplexity_") and value < 1e5 else count(value)


def _rate(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else count(value)


NUMBERED = {"perplexity_": "perplexity,", "sample_": "Sample"}
TITLES: dict[str, tuple[str, Callable[[float], str]]] = {
    "kv_cache_bytes_per_token": ("KV cache per token", size),
    "prefill_tokens_per_s": ("reading, tokens/s", _rate),
    "decode_tokens_per_s": ("writing, tokens/s", _rate),
    "windows_per_s": ("windows/s", _rate),
    "threads": ("threads", count),
    "parameters": ("parameters", count),
    "bytes": ("bytes of parameters", size),
    "cosine_to_dense": ("cosine to dense", number),
    "retrieval_accuracy": ("retrieval accuracy", percent),
}
