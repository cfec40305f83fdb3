"""Every kind of group on every supported family: all forms of a pruned model compute the same, and costs are exact."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import DistilBertConfig, DistilBertModel

from autoprune.cost.observed import NetworkCosts
from autoprune.device.onnx_runtime import onnx_call
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.export.network import load_network, save_network
from autoprune.export.onnx import export_onnx
from autoprune.structure.block_sparse import KeyBlocks, patterns_of
from autoprune.structure.edit import Ranking, masked, shrink
from autoprune.structure.families import FAMILIES
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Pattern, Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task import huggingface
from autoprune.task.task import Task
from tests.language_models import EVERY_KIND, TINY, TOKENS, causal_task

GROUPED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # several query heads for one key head
KINDS = (  # what stands together here is not tried alone, but for what others hide
    ("queries", "neurons"),
    ("heads", "queries", "neurons"),
    ("attention", "ffn"),
    ("heads", "neurons", "attention", "ffn"),
    ("blocks",),
    ("blocks", "heads", "neurons"),
    ("weights", "blocks"),
    ("2:4", "attention"),
    ("4:8",),
    ("heads", "keys:5", "neurons"),  # the last block is shorter
    ("queries", "keys:4"),
    ("keys:4", "attention", "ffn"),
    ("blocks", "keys:4"),
    ("weights", "keys:4"),
)
# built as others in the table are: one case of each says that their parts are where the table says
ALIKE = ("gemma", "gemma2", "gemma3_text", "granite", "starcoder2", "xlm-roberta", "camembert", "electra")
EXPERTS = ("mixtral", "qwen3_moe")
CASES = [
    *(("llama", kinds) for kinds in KINDS),
    *(
        (family, kinds)
        for family in TINY
        if family not in ("llama", *ALIKE, *EXPERTS)
        for kinds in (
            *([("heads", "queries", "neurons"), ("attention", "ffn")] if family in GROUPED
              else [("heads", "neurons", "attention", "ffn")]),
            ("weights", "keys:4"),
            *([("2:4", "attention"), ("blocks", "heads", "neurons")] if family in EVERY_KIND else []),
        )
    ),
    *((family, ("heads", "neurons", "attention", "ffn")) for family in ALIKE),
    *((family, ("blocks",)) for family in ("gemma2", "gemma3_text")),
    *(
        (family, kinds)
        for family in EXPERTS
        for kinds in (("heads", "queries", "neurons", "experts"), ("attention", "ffn", "experts"))
    ),
    ("qwen3_moe", ("blocks", "experts", "neurons")),
    ("mixtral", ("weights", "ffn")),
]  # fmt: skip
# of every family all that is exported differently, once
EXPORTED = [
    (family, kinds)
    for family, kinds in CASES
    if kinds in (("heads", "queries", "neurons"), ("weights", "keys:4"), ("heads", "queries", "neurons", "experts"))
    or (kinds == ("attention", "ffn") and family == "llama")
    or (kinds == ("heads", "neurons", "attention", "ffn") and family not in ("llama", *ALIKE))
]
case = pytest.mark.parametrize(
    ("family", "kinds"), CASES, ids=lambda value: value if isinstance(value, str) else "+".join(value)
)


def structure_of(task: Task, kinds: tuple[str, ...]) -> Structure:
    return find_structure(task.model, task.example_input, prune=kinds)


def random_ranking(task: Task, structure: Structure, seed: int = 0) -> Ranking:
    generator = torch.Generator().manual_seed(seed)
    ranking: dict[str, Tensor] = {}
    for group in structure.groups:
        ranking[group.name] = torch.randperm(group.units, generator=generator)
        for matrix in group.compared:
            scores = torch.rand(
                task.model.get_submodule(matrix.layer).get_parameter("weight").shape, generator=generator
            )
            places = scores.unflatten(1, (-1, matrix.size)).argsort(dim=2).argsort(dim=2)
            ranking[group.name] = places.flatten(1).to(torch.int16)
    return ranking


def plans_of(structure: Structure, count: int = 1) -> list[np.ndarray]:
    """The floor and random ones, which are others for every structure."""
    rng = np.random.default_rng(len(structure.groups) + int(structure.units.sum()))
    plans = [np.array([rng.choice(group.levels) for group in structure.groups]) for _ in range(count)]
    return [structure.floor, *plans]


@case
def test_masked_is_shrunk_is_sliced_is_reloaded_at_the_cost_that_is_counted(
    family: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    task = TINY[family]()
    structure = structure_of(task, kinds)
    ranking, inputs = random_ranking(task, structure), task.data.search.inputs[:3]
    ordered, single = OrderedNetwork(task.model, structure, ranking), any(g.compared for g in structure.groups)
    costs = NetworkCosts(task.model, structure, task.example_input)
    macs, params = costs.macs(), costs.params()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    for kept in plans_of(structure):
        plan = structure.plan(kept)
        small = shrink(task.model, structure, plan, ranking)
        save_network(small, tmp_path, architecture=task.architecture)
        with torch.inference_mode():
            with masked(task.model, structure, plan, ranking):
                expected = task.forward(task.model, inputs)
            forms = {
                "shrunk": task.forward(small, inputs),
                "sliced": task.forward(ordered.at(plan.kept), inputs),
                "reloaded": task.forward(load_network(tmp_path), inputs),
                "reloaded into the dense one": task.forward(load_network(tmp_path, model=task.model), inputs),
            }
        for form, outputs in forms.items():
            assert torch.allclose(outputs, expected, rtol=1e-4, atol=1e-4), (form, plan.kept)
        assert int(params(kept)) == sum(int((p != 0).sum()) if single else p.numel() for p in small.parameters())
        if not single:
            hidden = sum(hidden_macs(small, *installed) for installed in patterns_of(small))
            assert int(macs(kept)) == counted_macs(small, task.example_input) - hidden
    assert all(torch.equal(before[name], tensor) for name, tensor in task.model.state_dict().items())
    assert int(macs(structure.units)) == counted_macs(task.model, task.example_input)


def counted_macs(network: nn.Module, inputs: Tensor) -> int:
    network.config._experts_implementation = "eager"  # expert by expert, of which torch counts what was routed
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


def hidden_macs(network: nn.Module, pattern: Pattern, kept: int) -> int:
    """What a mask hides of an attention's scores and mixing, of which torch computes all: a share of the square."""
    shown, whole = (int(KeyBlocks.of(pattern).allowed(level).sum()) for level in (kept, -(-TOKENS // pattern.block)))
    block = network.get_submodule(pattern.module.partition(".self")[0].removesuffix(".attn"))
    outputs = ("self_attn.o_proj", "attn.c_proj", "output.dense", "out_lin")
    found = dict(block.named_modules())
    width = next(layer.in_features for name in outputs if isinstance(layer := found.get(name), nn.Linear))
    return 2 * width * (TOKENS**2 - math.ceil(TOKENS**2 * shown / whole))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kinds"), EXPORTED, ids=str)
def test_onnx_computes_the_same(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    task = TINY[family]()
    structure = structure_of(task, kinds)
    ranking, inputs = random_ranking(task, structure), task.data.search.inputs[:3]
    kept = plans_of(structure, 1)[-1]
    small = shrink(task.model, structure, structure.plan(kept), ranking)
    export_onnx(small, task.example_input, tmp_path / "network.onnx", forward=task.forward)
    with torch.inference_mode():
        expected = task.forward(small, inputs)
    outputs = torch.from_numpy(onnx_call(tmp_path / "network.onnx", inputs)()[0])
    assert torch.allclose(outputs, expected, atol=1e-4)


@pytest.mark.parametrize(
    "kinds",
    [
        ("heads", "queries", "neurons"),
        ("attention", "neurons"),
        ("blocks",),
        ("weights", "ffn"),
        ("keys:2", "heads", "neurons"),
        ("keys:2", "attention"),
    ],
)
def test_pruned_decoders_generate_with_a_cache_as_without(kinds: tuple[str, ...]) -> None:
    task = causal_task("llama")
    structure = structure_of(task, kinds)
    for kept in plans_of(structure, 2)[1:]:
        small = shrink(task.model, structure, structure.plan(kept), random_ranking(task, structure))
        prompt = task.data.search.inputs[:1, :5]
        options = {
            "max_new_tokens": 20,  # longer than the example, which costs and key blocks are for
            "do_sample": False,
            "attention_mask": torch.ones_like(prompt),
            "pad_token_id": 0,
        }
        cached, plain = (small.generate(prompt, use_cache=cache, **options) for cache in (True, False))
        assert torch.equal(cached, plain)


def test_queries_go_equally_from_every_key_head() -> None:
    task = causal_task("llama")
    structure = structure_of(task, ("queries",))
    group = structure.groups[0]
    assert (group.units, group.granularity) == (2, "query")
    small = shrink(task.model, structure, structure.plan(structure.floor), random_ranking(task, structure))
    attention = small.get_submodule("model.layers.0.self_attn")
    assert attention.num_key_value_groups == 1
    assert attention.q_proj.out_features == attention.k_proj.out_features == 16


def test_two_of_four_is_the_pattern() -> None:
    task = causal_task("llama")
    structure = structure_of(task, ("2:4",))
    small = shrink(task.model, structure, structure.plan(structure.floor), random_ranking(task, structure))
    for group in structure.groups:
        weight = small.get_submodule(group.compared[0].layer).get_parameter("weight")
        assert ((weight != 0).unflatten(1, (-1, 4)).sum(dim=2) == 2).all()


def test_weights_are_those_that_groups_take_from() -> None:
    task = causal_task("llama")
    structure = structure_of(task, ("weights",))
    linear = sum(m.weight.numel() for n, m in task.model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head")
    weights = NetworkCosts(task.model, structure, task.example_input).weights()
    assert int(weights(structure.units)) == linear
    half = np.array([group.units // 2 for group in structure.groups])
    assert int(weights(half)) == linear // 2


def test_the_blocks_are_the_stages() -> None:
    structure = structure_of(causal_task("llama"), ("neurons",))
    assert structure.stages == ("model.layers.0", "model.layers.1", "model.layers.2")
    assert [group.units for group in structure.groups] == [48, 48, 48]


def test_structures_need_no_weights() -> None:
    task = causal_task("llama")
    assert task.architecture is not None
    with torch.device("meta"):
        dry_model = huggingface.causal_lm(str(task.architecture.arguments["config"]))
    kinds = ("heads", "neurons", "ffn")
    real, dry = structure_of(task, kinds), transformer_structure(dry_model, task.example_input.to("meta"), prune=kinds)
    assert (dry.names, dry.layers, dry.other_params) == (real.names, real.layers, real.other_params)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("channels",), r"\['channels'\].*2:4"),
        ((), "the kinds are"),
        (("weights", "2:4"), "decides twice"),
        (("heads", "heads"), "decides twice"),
        (("weights", "neurons"), "single weights of a matrix that gets narrower"),
        (("blocks", "ffn"), "a block is its attention and its ffn"),
        (("heads", "queries", "attention"), "three decisions about one layer"),
        (("4:2",), "fewer weights than it compares"),
        (("1:7",), "multiples of 7"),
        (("keys:4", "keys:8"), r"\['keys:4', 'keys:8'\]"),
        (("heads", "queries", "keys:4"), "'keys:4'"),
        (("keys:4", "heads", "blocks"), "three decisions about one layer"),
        (("keys",), r"keys:32.*16 tokens.*keys:2"),
        (("keys:0",), "the kinds are"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(kinds: tuple[str, ...], message: str) -> None:
    task = causal_task("llama")
    with pytest.raises(ValueError, match=message):
        transformer_structure(task.model, task.example_input, prune=kinds)


def test_other_networks_take_no_kinds() -> None:
    with pytest.raises(ValueError, match="for transformers of the types"):
        find_structure(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4), prune=("heads",))


def test_unknown_model_types_are_refused() -> None:
    with pytest.raises(ValueError, match=f"of type None are not supported; the types that are: .*{min(FAMILIES)}"):
        transformer_structure(nn.Linear(2, 2), torch.zeros(1, 2))


def test_a_model_that_is_not_built_as_its_type_says_is_noticed() -> None:
    task = causal_task("llama")
    mlp = task.model.get_submodule("model.layers.1.mlp")
    mlp.forward = lambda x: mlp.down_proj(torch.softmax(mlp.up_proj(x), dim=-1))  # mixes all neurons
    with pytest.raises(ValueError, match="is not built as autoprune knows it: removing its units differs"):
        structure_of(task, ("neurons",))


def test_kept_modules_hold_no_groups() -> None:
    task = causal_task("llama").keeping(frozenset({"model.layers.1"}))
    structure = find_structure(task.model, task.example_input, prune=("heads", "neurons"), keep=task.keep)
    assert len(structure.groups) == 4
    assert set(structure.unprunable) == {"model.layers.1.self_attn", "model.layers.1.mlp"}


def test_a_transformer_that_is_called_by_name_has_the_groups_of_one_that_is_called_with_tokens() -> None:
    config = DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=8)
    model = DistilBertModel(config).eval()
    ids = torch.arange(6)[None]
    named = find_structure(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert named.names == find_structure(model, ids).names != ()
    assert find_structure(model, (ids,)).names == named.names
