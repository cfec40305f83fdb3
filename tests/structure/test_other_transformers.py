"""Transformers of types that no table describes: groups are found by experiment, kinds are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.export.network import load_network, save_network
from autoprune.structure.edit import masked, shrink
from autoprune.structure.examples import tensors
from autoprune.structure.graph import find_structure

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = SHAPE | {"num_key_value_heads": 2}
OPT = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
       "max_position_embeddings": 32, "word_embed_proj_dim": 32}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
# type → its configuration, and how many groups of heads and of neurons there are in its two blocks
TYPES: dict[str, tuple[dict[str, Any], int, int]] = {
    "phi3": (GROUPED, 2, 2),  # one projection for all, whose parts are cut by the configuration's number of heads
    "stablelm": (GROUPED, 2, 2),
    "opt": (OPT, 2, 2),
    "cohere": (GROUPED, 2, 2),
    "phi": (SHAPE, 2, 2),
    "gpt_neox": (SHAPE, 2, 2),
    "falcon": (SHAPE | {"num_kv_heads": 4, "ffn_hidden_size": 48}, 2, 2),  # one key for all queries
    "gpt_bigcode": (
        {
            "vocab_size": 64,
            "n_embd": 32,
            "n_head": 4,
            "n_layer": 2,
            "n_positions": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        2,
        2,
    ),
    "bloom": ({"vocab_size": 64, "hidden_size": 32, "n_head": 4, "n_layer": 2}, 0, 2),  # slopes of all heads, once
    "olmo2": (GROUPED, 0, 2),  # a norm over all heads
    "mpnet": (SHAPE, 1, 2),  # a bias of positions that both blocks share
    "albert": (SHAPE | {"embedding_size": 16}, 1, 1),  # one block that runs twice
    "deberta-v2": (SHAPE | RELATIVE, 2, 2),
    "modernbert": (SHAPE | {"cls_token_id": 1, "sep_token_id": 2}, 2, 2),
}
ENCODERS = ("mpnet", "albert", "deberta-v2", "modernbert")
IN_EVERY_RUN = ("phi3", "opt", "modernbert")


def model_of(kind: str) -> nn.Module:
    auto = transformers.AutoModel if kind in ENCODERS else transformers.AutoModelForCausalLM
    options = {"attn_implementation": "eager"} if kind in ("deberta-v2", "mpnet") else {}
    torch.manual_seed(0)
    model: nn.Module = auto.from_config(transformers.AutoConfig.for_model(kind, **TYPES[kind][0]), **options)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


@pytest.mark.parametrize(
    "kind", [kind if kind in IN_EVERY_RUN else pytest.param(kind, marks=pytest.mark.slow) for kind in TYPES]
)
def test_groups_are_found_by_experiment_and_every_form_computes_the_same(kind: str, tmp_path: Path) -> None:
    model, tokens = model_of(kind), torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    structure = find_structure(model, tokens)
    _, heads, neurons = TYPES[kind]
    attentions = [g for g in structure.groups if g.units in (2, 4)]
    assert (len(attentions), len(structure.groups) - len(attentions)) == (heads, neurons), structure.unprunable
    rng, before = np.random.default_rng(0), {key: value.clone() for key, value in model.state_dict().items()}
    shared = {id(config) for module in model.modules() if (config := vars(module).get("config")) is not None}
    assert len(shared) == 1, "the dense network's modules still share their configuration"
    ranking = {group.name: torch.from_numpy(rng.permutation(group.units)) for group in structure.groups}
    ordered = OrderedNetwork(model, structure, ranking)
    for kept in (structure.floor, np.array([rng.choice(group.levels) for group in structure.groups])):
        plan = structure.plan(kept)
        small = shrink(model, structure, plan, ranking)
        save_network(small, tmp_path, architecture=None)
        with torch.inference_mode():
            with masked(model, structure, plan, ranking):
                expected = next(iter(tensors(model(tokens)))).clone()
            for form in (small, ordered.at(plan.kept), load_network(tmp_path, model=model)):
                outputs = next(iter(tensors(form(tokens))))
                assert torch.allclose(outputs, expected, atol=1e-5 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_kinds_of_groups_of_a_type_that_no_table_has_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"structure\.prune=\['blocks'\].*phi3"):
        find_structure(model_of("phi3"), torch.ones(1, 8, dtype=torch.long), prune=("blocks",))
