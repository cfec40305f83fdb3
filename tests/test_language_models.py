"""Language models through everything: what a search is told of a plan is true of the network that is handed out."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.cli.generate import tokenizer_folder
from autoprune.evaluation.judge import Judge
from autoprune.importance.activation_norm import activation_norm
from autoprune.pipeline import SEARCHED, Job
from autoprune.records import Ledgers
from autoprune.recover.recovery import no_recovery
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair
from autoprune.repair.sparse_gpt_levels import SparseGPT
from autoprune.runs import RunFolder
from autoprune.search import evolution
from autoprune.task.language_measures import continuation, load_tokenizer
from autoprune.tracking import NoTracker
from tests.language_models import EVERY_KIND, TINY
from tests.search.searches import search as agent
from tests.search.searches import short
from tests.task.pretrained_models import causal, encoding
from tests.tasks import prepared

LEAST_SQUARES = Repair(batch_norm=False, least_squares=LeastSquares(ridge=1e-3, rows=4096))
NONE = Repair(batch_norm=False)
SPARSE_GPT = Repair(batch_norm=False, sparse_gpt=SparseGPT(damping=0.01, block=16, cap_bytes=2**20))
SCORED = partial(activation_norm, batch_size=8)
CASES = (
    (("heads", "neurons"), LEAST_SQUARES),
    (("blocks", "neurons"), LEAST_SQUARES),
    (("attention", "ffn"), NONE),
    (("weights", "ffn"), SPARSE_GPT),
    (("2:4",), NONE),
)
EVOLUTION = partial(evolution.search, start="uniform", offspring=4, switches=2, step=0.2)


@pytest.mark.parametrize(
    ("family", "kinds", "repair"),
    [
        *((family, *case) for family in EVERY_KIND for case in CASES),
        *((family, *CASES[0]) for family in ("qwen3", "smollm3", "distilbert")),
        *((family, ("heads", "neurons", "experts"), LEAST_SQUARES) for family in ("mixtral", "qwen3_moe")),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value if isinstance(value, str) else "",
)
def test_outcomes_are_those_of_the_network_that_is_handed_out(
    family: str, kinds: tuple[str, ...], repair: Repair, tmp_path: Path
) -> None:
    task = TINY[family]()
    ready = prepared(
        task, prune=kinds, repair=repair, importance=SCORED, budget="weights:0.7", proxy_samples=10, batch_size=5,
        store=tmp_path,
    )  # fmt: skip
    judge, rng = Judge(task, ready.candidates.proxy), np.random.default_rng(len(family) + len(kinds))
    plan = ready.structure.plan(ready.projector.project(rng.uniform(0.1, 1, len(ready.structure.groups))))
    outcome = ready.objective.uncharged.evaluate([plan])[0]
    truth = judge(ready.pruned(plan))
    assert outcome.feasible
    assert outcome.cost["weights"] <= ready.projector.budget.limit
    for metric in ("kl", "loss", "accuracy", "agreement"):
        assert getattr(outcome.metrics, metric) == pytest.approx(getattr(truth, metric), rel=1e-3, abs=1e-4), metric


def job(folder: Path, task: Any, *, evaluations: int = 12, search: Any = EVOLUTION, **changes: Any) -> Job:
    run = RunFolder.create(folder)
    settings = {"importance": SCORED, "repair": LEAST_SQUARES, "proxy_samples": 3, "batch_size": 2} | changes
    return Job(
        prepared(task, **settings),
        search=search,
        recover=no_recovery,
        compared_with=("uniform",),
        agent="evolution",
        evaluations=evaluations,
        seed=0,
        run=run,
        ledgers=Ledgers.of(run),
        tracker=NoTracker(),
    )


@pytest.mark.parametrize(
    ("family", "kinds"), [("llama", ("heads", "neurons", "attention", "ffn")), ("mixtral", ("experts", "neurons"))]
)
def test_the_whole_job_on_a_model_folder(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    task = causal(tmp_path / "model", family)
    result = job(tmp_path / "run", task, prune=kinds, budget="weights:0.8").execute()
    network = autoprune.load(tmp_path / "run")
    chosen = result["networks"][result["chosen"]]
    assert isinstance(network, type(task.model))
    assert chosen["cost"]["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert chosen["after"] == chosen["before"]
    assert {"perplexity_topics", "decode_tokens_per_s", "sample_1"} <= chosen["measures"].keys()
    assert not (tmp_path / "run" / "network.onnx").exists()  # which is not made of models that may be this large
    tokenizer = load_tokenizer(tokenizer_folder(tmp_path / "run"))
    assert isinstance(continuation(network, tokenizer, "The ", tokens=5), str)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["networks"][SEARCHED]["measures"]["sample_1"] == result["networks"][SEARCHED]["measures"]["sample_1"]


def test_the_whole_job_on_an_encoder(tmp_path: Path) -> None:
    result = job(tmp_path / "run", encoding(tmp_path / "model"), prune=("heads", "neurons")).execute()
    network, chosen = autoprune.load(tmp_path / "run"), result["networks"][result["chosen"]]
    assert -1 <= chosen["measures"]["cosine_to_dense"] <= 1
    assert result["export_differences"].keys() == {"reloaded", "onnx"}
    with torch.inference_mode():
        assert network(torch.ones(1, 5, dtype=torch.long)).last_hidden_state.shape[:2] == (1, 5)


@pytest.mark.parametrize("kinds", [("blocks", "heads", "neurons"), ("2:4",)])
def test_agents_search_them_as_any_other_network(kinds: tuple[str, ...], tmp_path: Path) -> None:
    searching = agent("ppo", **short("ppo"))
    settings: dict[str, Any] = {"prune": kinds, "budget": "weights:0.8", "proxy_samples": 10}
    work = job(tmp_path / "run", TINY["llama"](), evaluations=40, search=searching, **settings)
    plan, told = work.search_plan()
    assert told.spent == 40
    assert work.problem.costs["weights"](np.array(plan.kept)) <= work.problem.projector.budget.limit
