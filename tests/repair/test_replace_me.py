"""ReplaceMe: runs of removed sublayers are made up for by the layer before them, judged as handed out, at no cost."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import autoprune
from autoprune.evaluation.judge import Judge
from autoprune.export.network import RUN_FOLDER, save_network
from autoprune.export.pretrained_folder import write_pretrained_folder
from autoprune.importance.activation_norm import activation_norm
from autoprune.problem.problem import Problem
from autoprune.repair.repair import Repair
from autoprune.repair.replace_me import ReplaceMe, Replacements
from tests.language_models import TINY, causal_task
from tests.tasks import prepared

SETTINGS = ReplaceMe(ridge=1e-3, rows=256)
SEPARATE = tuple(frozenset((index,)) for index in range(5))
NAMES = ("a", "b", "c", "d", "e")


def ready(family: str = "llama", *, prune: tuple[str, ...], repair: bool = True, **changes: Any) -> Problem:
    return prepared(
        causal_task(family, **changes), prune=prune, budget="weights:0.7",
        repair=Repair(batch_norm=False, replace_me=SETTINGS if repair else None),
        importance=partial(activation_norm, batch_size=8), proxy_samples=10, batch_size=5,
    )  # fmt: skip


def streams(matrix: torch.Tensor, *, rows: int = 200) -> torch.Tensor:
    """Five sublayers, of which "c" and "d" add together what `matrix` makes of what "b" adds; the others at random."""
    generator = torch.Generator().manual_seed(0)
    added = torch.randn(5, rows, len(matrix), generator=generator, dtype=torch.float64)
    added[3] = added[1] @ matrix.double().T - added[2]
    return torch.cat([torch.zeros_like(added[:1]), added.cumsum(0)])


def test_a_run_that_is_linear_is_replaced_exactly() -> None:
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    maps = Replacements(NAMES, SEPARATE, streams(matrix), ridge=1e-9).of((1, 1, 0, 0, 1))
    assert list(maps) == ["b"]
    assert torch.allclose(maps["b"].double(), torch.eye(6) + matrix, atol=1e-5)


def test_what_has_nothing_to_do_with_the_layer_before_is_not_made_up_for() -> None:
    """The control: of a random addition, the map explains no more than chance does."""
    random = Replacements(NAMES, SEPARATE, streams(torch.zeros(6, 6), rows=20_000), ridge=1e-9)
    assert torch.allclose(random.of((1, 1, 0, 1, 1))["b"], torch.eye(6), atol=0.05)


def test_runs() -> None:
    maps = Replacements(NAMES, SEPARATE, streams(torch.zeros(2, 2)), ridge=1e-3)
    assert maps.runs((1, 1, 1, 1, 1)) == []
    assert maps.runs((0, 0, 1, 0, 1)) == [(3, 4)]  # what the network begins with has nothing before it
    assert maps.runs((1, 0, 1, 0, 0)) == [(1, 2), (3, 5)]
    blocks = Replacements(NAMES[:4], [frozenset((0,))] * 2 + [frozenset((1,))] * 2, streams(torch.zeros(2, 2)), ridge=1)
    assert blocks.runs((1, 0)) == [(2, 4)]


@pytest.mark.parametrize(
    ("family", "prune"), [("llama", ("blocks",)), ("gpt2", ("attention", "ffn")), ("llama", ("blocks", "neurons"))]
)
def test_judged_as_handed_out_and_costs_nothing(family: str, prune: tuple[str, ...]) -> None:
    problem, bare = ready(family, prune=prune), ready(family, prune=prune, repair=False)
    judge, rng = Judge(problem.task, problem.candidates.proxy), np.random.default_rng(0)
    made_up = 0
    for _ in range(6):
        kept = problem.projector.project(rng.uniform(0.1, 1, len(problem.structure.groups)))
        plan = problem.structure.plan(kept)
        (outcome,) = problem.objective.uncharged.evaluate([plan], whole=True)
        network, other = problem.pruned(plan), bare.pruned(plan)
        assert outcome.metrics.kl == pytest.approx(judge(network).kl, rel=1e-4)
        shapes = [{name: p.shape for name, p in each.named_parameters()} for each in (network, other)]
        assert shapes[0] == shapes[1]
        assert problem.costs["macs"]([kept]) == bare.costs["macs"]([kept])
        made_up += bool(problem.candidates.replacements.runs(plan.kept))  # type: ignore[union-attr]
    assert made_up
    dense = problem.structure.dense  # and nothing of it is left behind
    assert problem.objective.uncharged.evaluate([dense], whole=True)[0].metrics.kl == pytest.approx(0, abs=1e-6)


def test_the_stream_behind_a_run_is_nearer_to_the_dense_one() -> None:
    problem = ready(prune=("blocks",), num_hidden_layers=4)
    plan = problem.structure.plan(np.array([1, 1, 0, 1]))
    windows = problem.task.data.calibration.inputs

    def behind(network: Any) -> torch.Tensor:
        heard: list[torch.Tensor] = []
        hook = network.model.layers[3].register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0]))
        with torch.inference_mode():
            network(windows)
        hook.remove()
        return heard[0]

    bare = ready(prune=("blocks",), repair=False, num_hidden_layers=4)
    dense = behind(problem.task.model)
    errors = [float((behind(p.pruned(plan)) - dense).square().mean()) for p in (problem, bare)]
    assert errors[0] < 0.9 * errors[1]


def test_exported_in_the_stock_layout_and_loaded(tmp_path: Path) -> None:
    problem = ready(prune=("blocks",))
    network = problem.pruned(problem.structure.plan(np.array([1, 0, 1])))
    save_network(network, tmp_path / RUN_FOLDER, architecture=problem.task.architecture)
    assert write_pretrained_folder(network, tmp_path / "hf").layout == "stock"
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    tokens = problem.task.data.test.inputs[:2]
    with torch.inference_mode():
        for other in (read, autoprune.load(tmp_path)):
            assert torch.allclose(other(tokens).logits, network(tokens).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "prune", "sentence"),
    [
        ("llama", ("neurons",), r"structure\.prune=\[blocks\]"),
        ("llama", ("weights", "ffn"), "none would be zero"),
        ("gemma2", ("blocks",), "a norm stands between"),
    ],
)
def test_where_it_cannot_be_merged_that_is_said(family: str, prune: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ready(family, prune=prune)


def test_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="a norm stands between"):
        prepared(
            TINY["bert"](), prune=("blocks",), repair=Repair(batch_norm=False, replace_me=SETTINGS), proxy_samples=10,
            batch_size=5,
        )  # fmt: skip
