"""The key–value cache of a decoder."""

from torch import nn

from autoprune.cost.model import BilinearCost, summed
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import Structure

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gpt2")


def kv_cache(model: nn.Module, structure: Structure, *, context: int, element_bytes: int) -> BilinearCost:
    """Bytes that a text of `context` tokens takes: 2 · key heads kept · their width · attentions that are there.

    Fewer blocks of keys (`keys`) do not make it smaller, nor do windows of sliding attentions.
    Raises ValueError for a model that keeps no such cache.
    """
    kind = model_type(model)
    if kind not in DECODERS:
        raise ValueError(f"only decoders keep keys and values, of the types {list(DECODERS)}; this one is {kind!r}")
    if context < 1:
        raise ValueError(f"the cache is of at least one token, got context={context}")
    projections = FAMILIES[kind].projections
    # one projection writes queries, keys and values at once, and then there are as many heads of each
    writing = {f".{name}": 1 for name in projections[1:]} or {f".{FAMILIES[kind].attention}": 2}
    per_output = [
        sum(times for ending, times in writing.items() if layer.name.endswith(ending)) * context * element_bytes
        for layer in structure.layers
    ]
    return summed("kv_cache", "bytes", structure, [0] * len(per_output), per_output, 0)
