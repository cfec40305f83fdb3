"""structure.uniform: plans in which all blocks keep equally many, by whatever search, each block its own best units."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation.judge import Judge
from autoprune.export.pretrained_folder import write_pretrained_folder
from autoprune.importance.activation_norm import activation_norm
from autoprune.problem.problem import Problem
from autoprune.repair.repair import Repair
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.uniform_groups import in_order, merged, separate
from autoprune.task.shipped import shipped_task
from tests.language_models import TINY
from tests.models import random_ranking
from tests.search.searches import search
from tests.tasks import prepared

NONE = Repair(batch_norm=False)
READY: dict[str, Problem] = {}


def ready(family: str, **changes: Any) -> Problem:
    if family not in READY or changes:
        settings = {"uniform": ("heads", "neurons"), "proxy_samples": 8, "batch_size": 8, "repair": NONE} | changes
        problem = prepared(
            TINY[family](), importance=partial(activation_norm, batch_size=8), budget="weights:0.6", **settings
        )
        if changes:
            return problem
        READY[family] = problem
    return READY[family]


def sizes(network: Any) -> set[tuple[int, int]]:
    """Heads' features and neurons of every block."""
    return {
        (block.self_attn.k_proj.out_features, block.mlp.up_proj.out_features)
        for block in network.get_submodule("model.layers")
    }


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=2))
def test_every_plan_is_uniform_and_meets_the_budget(density: list[float]) -> None:
    problem = ready("llama")
    kept = problem.projector.project(np.array(density))
    assert problem.projector.budget.meets(kept)
    network = problem.pruned(problem.structure.plan(kept))
    assert len(sizes(network)) == 1
    assert sum(p.numel() for p in network.parameters()) == problem.costs["params"]([kept])[0]


@pytest.mark.parametrize("name", ["evolution", "random", "greedy", "spdy", "cmaes", "annealing"])
def test_any_search(name: str, tmp_path: Path) -> None:
    problem = ready("llama").limited(12)
    plan = search(name)(problem, rng=np.random.default_rng(0))
    network = problem.pruned(plan)
    assert len(sizes(network)) == 1
    assert write_pretrained_folder(network, tmp_path / "out").layout == "stock"
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = problem.task.data.test.inputs[:2]
    with torch.inference_mode():
        assert torch.allclose(read(tokens).logits, network(tokens).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kinds"), [("llama", ("heads", "neurons")), ("gpt2", ("heads",)), ("bert", ("heads", "neurons"))]
)
def test_units_are_each_blocks_own_best(family: str, kinds: tuple[Any, ...]) -> None:
    task = TINY[family]()
    blocks = find_structure(task.model, task.example_input, prune=kinds)
    ranking = random_ranking(blocks, seed=3)
    scores = {
        name: torch.empty(len(units)).index_put((units,), torch.arange(len(units), 0.0, -1))
        for name, units in ranking.items()
    }
    whole = merged(blocks, kinds)
    assert sorted(separate(whole).names) == sorted(blocks.names)
    whole, values, order = in_order(whole, scores, ranking)
    assert [group.name.count("*") for group in whole.groups] == [1] * len(kinds)
    for group in whole.groups:
        assert (values[group.name].diff() <= 0).all()  # the best unit of every block comes first
    kept = np.array([group.levels[len(group.levels) // 2] for group in whole.groups])
    levels = {part.name: k for group, k in zip(whole.groups, kept, strict=True) for part in group.parts}
    networks = [
        shrink(task.model, whole, whole.plan(kept), order),
        shrink(task.model, blocks, blocks.plan(np.array([levels[name] for name in blocks.names])), ranking),
    ]
    with torch.inference_mode():
        outputs = [network(task.example_input)[0] for network in networks]
    assert torch.equal(*outputs)


def test_judged_as_handed_out() -> None:
    problem = ready("llama")
    kept = problem.projector.project(np.array([0.7, 0.3]))
    (outcome,) = problem.objective.uncharged.evaluate([problem.structure.plan(kept)], whole=True)
    judged = Judge(problem.task, problem.candidates.proxy)(problem.pruned(problem.structure.plan(kept)))
    assert outcome.metrics.kl == pytest.approx(judged.kl, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"uniform": ("neurons",), "prune": ("heads",)}, "0 groups are of that kind"),
        ({"uniform": ("neurons", "neurons")}, "at most once"),
        ({"uniform": ("blocks",)}, "structure.uniform"),
    ],
)
def test_what_cannot_be_uniform_is_said(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ready("llama", **changes)


def test_kept_layers_leave_no_uniform_plan() -> None:
    task = replace(TINY["llama"](), keep=("model.layers.1.mlp.up_proj",))
    with pytest.raises(ValueError, match=r"model\.layers\.1 stay whole"):
        prepared(task, uniform=("neurons",), prune=("neurons",), proxy_samples=8, batch_size=8)


def test_networks_without_blocks_have_nothing_to_make_uniform() -> None:
    with pytest.raises(ValueError, match="all blocks of a transformer"):
        prepared(shipped_task("digits"), uniform=("neurons",))
