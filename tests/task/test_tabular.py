"""The shipped tables: they are of these networks, they say what live judging says, and they are used as documented."""

import functools
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.metered import MeteredObjective
from autoprune.evaluation.outcome import Metrics
from autoprune.evaluation.settings import EvaluationSettings, Precision
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair
from autoprune.tabular.table import METRICS, ON, On, Table
from autoprune.task.shipped import shipped_task
from autoprune.task.tabular import ZOO, table_plain, table_residual
from autoprune.task.task import Task
from tests.commands import run

ROOT = Path(__file__).parent.parent.parent
TASKS = {"table_residual": table_residual, "table_plain": table_plain}
NAMES = list(TASKS)


def made(task: Task, *, budget: str = "macs:0.35") -> Problem:
    precision: Precision = "auto" if task.table else "fp32"
    spec = ProblemSpec(
        budget=budget,
        repair=Repair(batch_norm=True, least_squares=LeastSquares(ridge=0.001, rows=8192)),
        evaluation=EvaluationSettings(precision=precision, batch_size=50, race=None, store=None),
    )
    return Problem.prepare(task, spec)


@functools.cache
def tabular_by(name: str, budget: str) -> Problem:
    return made(_shipped(name), budget=budget)


@functools.cache
def _shipped(name: str) -> Task:
    return shipped_task(name)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def table(name: str) -> Table:
    return Table.load(ZOO / f"{name}.npz")


@pytest.fixture(scope="module")
def tabular(name: str) -> Problem:
    return tabular_by(name, "macs:0.35")


def test_six_groups_of_six_levels_each(table: Table) -> None:
    assert len(table) == 6**6
    assert table.levels.shape == (6, 6)
    assert (table.levels[:, -1] == table.units).all()
    for on in ON:
        assert table.judged[on].shape == (4, *6 * (6,))
        assert np.isfinite(table.judged[on]).all()
    assert {"date", "commit", "versions", "machine", "criterion", "repair", "precision", "weights"} <= table.card.keys()


def test_all_that_is_shipped_for_tables_is_small() -> None:
    assert sum(path.stat().st_size for path in ZOO.glob("table_*")) <= 3_000_000


def test_plans_are_judged_live_to_what_stands_in_the_table(name: str, table: Table) -> None:
    assert TASKS[name](table=None).table is None
    live, rng = made(replace(_shipped(name), table=None)), np.random.default_rng(0)
    for place in rng.choice(len(table), 3, replace=False).tolist():
        plan = table.plan(place)
        outcome = live.objective.uncharged.evaluate([plan])[0]
        for metric in METRICS:
            here, there = (getattr(of, metric) for of in (outcome.metrics, table.metrics(plan.kept)))
            assert here == pytest.approx(there, abs=_tolerance(metric)), (plan, metric)
        assert {cost: int(of.flat[place]) for cost, of in table.costs.items()} == {
            cost: outcome.cost[cost] for cost in table.costs
        }


def _tolerance(metric: str) -> float:
    """Another processor sums in another order, which may turn one of 500 samples."""
    return 1e-4 if metric in ("loss", "kl") else 1.01 / 500


def test_the_task_answers_thousands_of_plans_a_second(tabular: Problem, table: Table) -> None:
    plans = [table.plan(place) for place in np.random.default_rng(0).integers(len(table), size=2_000).tolist()]
    objective = MeteredObjective(tabular.objective.uncharged, limit=len(plans), record=lambda *_: None)
    start = time.process_time()
    for first in range(0, len(plans), 10):
        objective.evaluate(plans[first : first + 10])
    assert len(plans) / (time.process_time() - start) > 3_000


@pytest.mark.parametrize("budget", ["macs:0.5", "macs:0.15"])
def test_groups_interact_and_the_optimum_beats_uniform_and_sensitivity(name: str, table: Table, budget: str) -> None:
    ready = tabular_by(name, budget)
    best, score = table.best(ready.projector.budget.limit)
    curves = single_group_curves(ready.structure, ready.objective.uncharged.evaluate)
    sensitivity = sensitivity_plan(ready.structure, ready.projector, curves)
    uniform = uniform_plan(ready.structure, ready.projector)
    scores = [outcome.score for outcome in ready.objective.uncharged.evaluate([best, sensitivity, uniform])]
    assert scores[0] == score > scores[1] > scores[2]
    accuracy = [table.metrics(plan.kept, on="held_out").accuracy for plan in (best, uniform)]
    assert accuracy[0] - accuracy[1] > 0.03
    if budget == "macs:0.15":
        together = curves[ready.structure.names[0]].outcomes[-1].score - scores[2]
        alone = sum(float(curve.at([kept])[0]) for curve, kept in zip(curves.values(), uniform.kept, strict=True))
        assert together > 1.3 * alone


def test_the_document_reads_the_file_with_numpy_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    example = _blocks("python")[0]
    assert len(example.strip().splitlines()) <= 15
    assert re.findall(r"^(?:import|from) (\w+)", example, re.MULTILINE) == ["json", "numpy"]
    (tmp_path / "table_plain.npz").write_bytes((ZOO / "table_plain.npz").read_bytes())
    subprocess.run([sys.executable, "-I", "-c", example], cwd=tmp_path, check=True)
    printed = capfd.readouterr().out
    table = Table.load(ZOO / "table_plain.npz")
    best, score = table.best(0.35 * float(table.costs["macs"].max()))
    assert f"{list(best.kept)} of 46656 plans, KL {-score:.4f}" in printed


def test_the_regret_in_the_document_is_that_of_the_best_plan() -> None:
    names: dict[str, object] = {}
    exec(_blocks("python")[1], names)
    assert names["regret"] == 0


@pytest.mark.slow
def test_the_documents_figures_are_those_of_the_tables() -> None:
    rows = re.findall(r"^\| `(table_\w+)` \| ([\d.]+) \| (.*) \|$", _text(), re.MULTILINE)
    assert len(rows) == 8
    for name in NAMES:
        macs, params = (Table.load(ZOO / f"{name}.npz").costs[cost].max() for cost in ("macs", "params"))
        assert f"{params:,} parameters, {macs / 1e6:.2f} MMACs" in _text()
    for name, share, cells in rows:
        assert cells == " | ".join(figures(name, share)), f"| `{name}` | {share} | {' | '.join(figures(name, share))} |"


def figures(name: str, share: str) -> list[str]:
    """Of uniform, the sensitivity plan and the best plan: KL on the proxy, and accuracy on held-out samples in %."""
    table, tabular = Table.load(ZOO / f"{name}.npz"), tabular_by(name, f"macs:{share}")
    curves = single_group_curves(tabular.structure, tabular.objective.uncharged.evaluate)
    plans = [
        uniform_plan(tabular.structure, tabular.projector),
        sensitivity_plan(tabular.structure, tabular.projector, curves),
        table.best(tabular.projector.budget.limit)[0],
    ]
    told = [f"{int(table.feasible(tabular.projector.budget.limit).sum()):,}"]
    for plan in plans:
        proxy, held_out = _on(table, plan.kept, "proxy"), _on(table, plan.kept, "held_out")
        told.append(f"{proxy.kl:.3f}, {100 * held_out.accuracy:.1f}")
    return [*told, " ".join(map(str, plans[-1].kept))]


def _on(table: Table, kept: tuple[int, ...], on: On) -> Metrics:
    return table.metrics(kept, on=on)


def _text() -> str:
    return (ROOT / "docs" / "tables.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_main_job_runs_on_a_table(tmp_path: Path) -> None:
    settings = ["task=table_plain", "agent=evolution", "evaluations=60", "threads=1", "tracking=none", "recover=none"]
    done = run("search", *settings, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["evaluations"]["spent"] == 60
    kept = tuple(group["kept"] for group in result["networks"]["searched"]["plan"].values())
    assert result["networks"]["searched"]["proxy"]["kl"] == Table.load(ZOO / "table_plain.npz").metrics(kept).kl
    refused = run("search", *settings, "importance=random", cwd=tmp_path)
    assert refused.returncode != 0
    assert "importance puts units in another order than l1" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_script_goes_on_after_it_was_stopped(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_table"), "table_plain", "--out", str(tmp_path / "t.npz")]
    sizes = []
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.kill()
        assert re.match(r"table_plain [\d,]+ of 46,656 plans, \d+ a second, [\d.]+ minutes left", line)
        sizes.append((tmp_path / "t.building" / "judged").stat().st_size // (8 + 6 * 2 * 4 * 4))
    assert 1 <= sizes[0] < sizes[1]
    assert not (tmp_path / "t.npz").exists()
