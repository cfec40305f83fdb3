import json
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.evaluation import judge, reward
from autoprune.importance.random_scores import random
from autoprune.machine_cache import MeasurementCache
from autoprune.problem import objective_builder as build
from autoprune.problem.problem import Problem
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair
from autoprune.task.task import accuracy
from tests.evaluation.tables import Several, timeless
from tests.models import random_plan
from tests.tasks import prepared, tiny_task


def opened(folder: Path, name: str = "residual", *, keep: frozenset[str] = frozenset(), **changes: Any) -> Problem:
    return prepared(tiny_task(name, keep=keep), **({"store": folder, "batch_size": 10} | changes))


def key(folder: Path, **changes: Any) -> str:
    """Of what is judged under these circumstances."""
    ready = opened(folder, **changes)
    assert ready.objective.uncharged.store is not None
    ready.close()
    return ready.objective.uncharged.store.key


def judged_by(ready: Problem, plans: list[Any]) -> tuple[list[str], int]:
    """The outcomes, and how many jobs there were."""
    evaluator: Any = ready.objective.uncharged.pool._evaluator  # type: ignore[attr-defined]
    ready.objective.uncharged.pool = pool = Several(evaluator, 1)
    outcomes = timeless(ready.objective.uncharged.evaluate(plans))
    ready.close()
    return outcomes, len(pool.given)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("least_squares", [None, LeastSquares(ridge=1e-3, rows=100)])
def test_what_a_run_has_judged_another_does_not(
    tmp_path: Path, batch_norm: bool, least_squares: LeastSquares | None
) -> None:
    repair = Repair(batch_norm=batch_norm, least_squares=least_squares)
    plans = [random_plan(opened(tmp_path).structure, seed=seed) for seed in range(4)]
    first = judged_by(opened(tmp_path, repair=repair), plans)
    assert first[1] > 0
    assert judged_by(opened(tmp_path, repair=repair), plans) == (first[0], 0)
    alone = prepared(tiny_task(), repair=repair, batch_size=10)
    assert judged_by_without_store(alone, plans) == first[0]


def judged_by_without_store(ready: Problem, plans: list[Any]) -> list[str]:
    assert ready.objective.uncharged.store is None
    return timeless(ready.objective.uncharged.evaluate(plans))


def test_nothing_is_shared_between_different_circumstances(tmp_path: Path) -> None:
    def worst(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return -accuracy(outputs, targets)

    solved = Repair(batch_norm=True, least_squares=LeastSquares(ridge=1e-3, rows=100))
    changes: dict[str, dict[str, Any]] = {
        "nothing": {},
        "criterion": {"importance": random},
        "batch norm": {"repair": Repair(batch_norm=False)},
        "least squares": {"repair": solved},
        "ridge": {"repair": Repair(batch_norm=True, least_squares=LeastSquares(ridge=1e-2, rows=100))},
        "precision": {"precision": "bf16"},
        "batch size": {"batch_size": 20},
        "proxy": {"proxy_samples": 30},
        "levels": {"round_to": 2},
        "kept layers": {"keep": frozenset({"conv2"})},
        "network": {"name": "separable"},
    }
    keys = {what: key(tmp_path, **change) for what, change in changes.items()}
    assert len(set(keys.values())) == len(keys), keys


def test_what_has_nothing_to_do_with_judging_is_shared(tmp_path: Path) -> None:
    some_rows = Repair(batch_norm=True, least_squares=LeastSquares(ridge=1e-3, rows=100))
    same: list[dict[str, Any]] = [{}, {"score": judge.accuracy}, {"reward": reward.amc}, {"budget": "params:0.7"}]
    assert len({key(tmp_path, **changes) for changes in same}) == 1
    assert len({key(tmp_path, repair=some_rows, seed=seed) for seed in range(2)}) == 1


def test_the_context_is_readable(tmp_path: Path) -> None:
    ready = opened(tmp_path)
    assert ready.objective.uncharged.store is not None
    description = json.loads(ready.objective.uncharged.store.description)
    ready.close()
    assert description["task"] == "residual"
    assert (description["batch_size"], description["precision"], description["trained"]) == (10, "fp32", None)
    assert description["torch"] == torch.__version__
    assert description["threads"] == torch.get_num_threads()
    assert (tmp_path / "evaluations.sqlite").exists()


def test_without_a_store_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ready = prepared(tiny_task(), batch_size="auto", precision="auto")
    ready.objective.uncharged.evaluate([ready.structure.dense])
    assert not list(tmp_path.iterdir())


# settings that are measured


@pytest.mark.parametrize(
    ("supported", "tau", "expected"),
    [(True, 1.0, "bf16"), (True, 0.9, "bf16"), (True, 0.89, "fp32"), (True, -1.0, "fp32"), (False, 1.0, "fp32")],
)
def test_bf16_where_the_device_computes_in_it_and_it_ranks_alike(
    supported: bool, tau: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "supports_bf16", lambda device: supported)
    monkeypatch.setattr(build, "agreement_of", lambda rough, exact, plans, batches: tau)
    measured = prepared(tiny_task(), precision="auto").measured
    assert measured["precision"] == expected
    assert measured.get("kendall") == (tau if supported else None)


def test_bf16_agreement_is_found_by_judging_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "supports_bf16", lambda device: True)
    measured = prepared(tiny_task(), precision="auto").measured
    assert -1 <= measured["kendall"] <= 1
    assert (measured["precision"] == "bf16") == (measured["kendall"] >= build.AGREES)


def test_what_was_measured_is_remembered_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def agreement(*_: object, **__: object) -> float:
        asked.append("precision")
        return 1.0

    def fastest(*_: object, **__: object) -> int:
        asked.append("batch size")
        return 20

    monkeypatch.setattr(build, "supports_bf16", lambda device: True)
    monkeypatch.setattr(build, "agreement_of", agreement)
    monkeypatch.setattr(build, "fastest_batch", fastest)
    for _ in range(2):
        ready = opened(tmp_path, batch_size="auto", precision="auto")
        assert {k: v for k, v in ready.measured.items() if k != "repair"} == {
            "precision": "bf16", "batch_size": 20, "kendall": 1.0,
        }  # fmt: skip
        assert ready.objective.uncharged.batches == 2
        ready.close()
    assert asked == ["precision", "batch size"]
    opened(tmp_path, batch_size="auto", precision="auto", repair=Repair(batch_norm=False)).close()
    assert asked == ["precision", "batch size"] * 2
    assert (tmp_path / "measured.json").is_file()
    assert MeasurementCache(tmp_path).get_or_measure({"question": "another"}, lambda: 3) == 3


@pytest.mark.parametrize(("asked", "expected", "batches"), [(500, 40, 1), (40, 40, 1), (13, 13, 3), (20, 20, 2)])
def test_a_batch_is_no_larger_than_the_proxy(asked: int, expected: int, batches: int) -> None:
    ready = prepared(tiny_task(), batch_size=asked)
    assert ready.measured["batch_size"] == expected
    assert ready.objective.uncharged.batches == batches
    assert ready.objective.uncharged.evaluate([ready.structure.dense])[0].metrics.samples == 40
