"""The cache that is counted is the one that a shrunk decoder fills."""

import numpy as np
import pytest
import torch

from autoprune.cost.model import QuadraticCost
from autoprune.cost.observed import NetworkCosts
from autoprune.structure.edit import shrink
from autoprune.structure.transformer import transformer_structure
from autoprune.task.pretrained import CAUSAL as DECODERS
from tests.language_models import CAUSAL, TINY, TOKENS, causal_task
from tests.models import random_plan, random_ranking

KINDS = (("heads", "neurons"), ("heads", "attention"), ("blocks", "heads"), ("weights",), ("heads", "keys:4"))


def filled(model: torch.nn.Module, tokens: torch.Tensor) -> int:
    """Bytes of keys and values that a forward pass leaves."""
    with torch.no_grad():
        cache = model(tokens, use_cache=True).past_key_values
    tensors = [x for layer in cache.layers for x in (layer.keys, layer.values) if x is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_the_decoders_are_those_with_a_cache() -> None:
    assert sorted(DECODERS) == sorted(CAUSAL)


@pytest.mark.parametrize(
    ("family", "kinds"),
    [*(("llama", kinds) for kinds in KINDS), *((family, KINDS[1]) for family in DECODERS if family != "llama")],
    ids=str,
)
def test_the_cache_is_that_of_the_shrunk_network(family: str, kinds: tuple[str, ...]) -> None:
    # texts no longer than a window, which the cost does not count
    task = causal_task(family, **({"sliding_window": 2 * TOKENS} if "gemma" in family else {}))
    structure = transformer_structure(task.model, task.example_input, prune=kinds)
    cost = NetworkCosts(task.model, structure, task.example_input).kv_cache(context=TOKENS, element_bytes=4)
    assert isinstance(cost, QuadraticCost)
    plans = [structure.dense, structure.plan(structure.floor), *(random_plan(structure, seed=s) for s in range(2))]
    for plan in plans:
        ranking = random_ranking(structure, seed=1)
        for group in structure.groups:
            for matrix in group.compared:
                inputs = task.model.get_submodule(matrix.layer).weight.shape
                ranking[group.name] = torch.arange(inputs[1], dtype=torch.int16).expand(inputs)
        small = shrink(task.model, structure, plan, ranking)
        assert cost(np.array(plan.kept)) == filled(small, task.example_input)


def test_a_longer_text_and_a_smaller_element_scale_it() -> None:
    task = TINY["llama"]()
    structure = transformer_structure(task.model, task.example_input, prune=("heads",))
    one = NetworkCosts(task.model, structure, task.example_input).kv_cache(context=1, element_bytes=2)(structure.units)
    assert one == 2 * 2 * 3 * 2 * 8  # keys and values, bytes, attentions, key heads, their width
    assert (
        NetworkCosts(task.model, structure, task.example_input).kv_cache(context=1000, element_bytes=2)(structure.units)
        == 1000 * one
    )


def test_an_encoder_has_none() -> None:
    task = TINY["bert"]()
    structure = transformer_structure(task.model, task.example_input, prune=("heads",))
    with pytest.raises(ValueError, match=r"only decoders keep keys and values.*this one is 'bert'"):
        NetworkCosts(task.model, structure, task.example_input).kv_cache(context=8, element_bytes=2)
    task = TINY["llama"]()
    structure = transformer_structure(task.model, task.example_input, prune=("heads",))
    with pytest.raises(ValueError, match="context=0"):
        NetworkCosts(task.model, structure, task.example_input).kv_cache(context=0, element_bytes=2)
