"""What a task measures of its networks beside accuracy and cost, in words: numbers side by side, texts below."""

from collections.abc import Callable, Sequence

from autoprune.report.contents import NetworkReport
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.wording import DASH, count, number, percent, size

Sample = tuple[str, list[tuple[NetworkReport, str]]]  # title, what every network wrote to the same prompt


def measure_table(networks: Sequence[NetworkReport]) -> PageTable:
    """A row of numbers for each measure, in the order in which they were measured, and a column for each network.

    Networks of which nothing was measured are left out, and so are texts, which `samples` has.
    """
    measured = [network for network in networks if network.measures]
    rows = [
        Row(_title(key), [Cell(_amount(key, network.measures.get(key))) for network in measured])
        for key in _keys(measured, texts=False)
    ]
    return PageTable([("", network.name) for network in measured], rows)


def samples(networks: Sequence[NetworkReport]) -> list[Sample]:
    """The texts; networks whose plan is an earlier one's wrote the same and are left out."""
    return [
        (_title(key), [(n, str(n.measures[key])) for n in networks if key in n.measures and not n.same_as])
        for key in _keys(networks, texts=True)
    ]


def _keys(networks: Sequence[NetworkReport], *, texts: bool) -> list[str]:
    text_of = {key: isinstance(value, str) for network in networks for key, value in network.measures.items()}
    return [key for key, is_text in text_of.items() if is_text is texts]


def _title(key: str) -> str:
    for start, words in NUMBERED.items():
        if key.startswith(start):
            return f"{words} {key.removeprefix(start)}"
    return TITLES[key][0] if key in TITLES else key.replace("_", " ")


def _amount(key: str, value: float | None) -> str:
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
