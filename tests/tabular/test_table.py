import re
import signal
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation import judge
from autoprune.evaluation.outcome import Metrics, joined
from autoprune.evaluation.race import Race
from autoprune.evaluation.short_training import ShortTraining
from autoprune.importance.random_scores import random
from autoprune.problem.problem import Problem
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair
from autoprune.tabular.build_table import Journal, build_table
from autoprune.tabular.build_table import _evaluator as evaluator_of
from autoprune.tabular.exhaustive import ExhaustiveEvaluator
from autoprune.tabular.table import On, Table
from autoprune.task.task import Roles, Task
from tests.commands import run_python
from tests.tasks import prepared, tiny_task

ROOT = Path(__file__).parent.parent.parent
REPAIR = Repair(batch_norm=True, least_squares=LeastSquares(ridge=1e-3, rows=100))
BATCH_SIZE = 10


def made(task: Task, **changes: Any) -> Problem:
    return prepared(task, **{"repair": REPAIR, "batch_size": BATCH_SIZE, **changes})


def made_live() -> Problem:
    return made(tiny_task("conv1d", levels=4))


CARD = {"criterion": "l1", "date": "2026-01-01"}


def built(
    ready: Problem,
    path: Path,
    *,
    workers: int = 0,
    card: dict[str, str] = CARD,
    told: Callable[[int, int, float], None] = lambda *_: None,
) -> Table:
    return build_table(
        ready.candidates, path, held_out=ready.held_out, costs=ready.costs, batch_size=BATCH_SIZE, workers=workers,
        card=card, on_progress=told,
    )  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Problem:
    return made_live()


@pytest.fixture(scope="module")
def file(live: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "conv1d.npz"
    built(live, path)
    return path


@pytest.fixture(scope="module")
def table(file: Path) -> Table:
    return Table.load(file)


@pytest.fixture
def task(file: Path) -> Task:
    return replace(tiny_task("conv1d", levels=4), table=file)


def test_every_plan_is_judged_as_live(file: Path, table: Table, live: Problem) -> None:
    elsewhere = replace(live.candidates, proxy=live.held_out).evaluator(precision="fp32", batch_size=BATCH_SIZE)
    assert len(table) == 4**3
    assert not file.with_suffix(".building").exists()
    for place in range(len(table)):
        plan = table.plan(place)
        assert table.index(plan.kept) == place
        outcome = live.objective.uncharged.evaluate([plan])[0]
        assert near(table.metrics(plan.kept), outcome.metrics)
        assert near(table.metrics(plan.kept, on="held_out"), joined(elsewhere.judge(plan.kept, 0, 2)).metrics)
        assert {cost: int(of.flat[place]) for cost, of in table.costs.items()} == {
            cost: outcome.cost[cost] for cost in ("macs", "params")
        }


def near(a: Metrics, b: Metrics) -> bool:
    mine, theirs = ([of.accuracy, of.loss, of.kl, of.agreement, of.samples] for of in (a, b))
    return np.allclose(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def evaluator(live: Problem) -> ExhaustiveEvaluator:
    return evaluator_of(live.candidates, live.held_out, BATCH_SIZE)


@given(order=st.lists(st.integers(0, 15), min_size=1, max_size=8), first=st.integers(0, 3))
def test_what_is_recalled_does_not_depend_on_the_plans_before(
    live: Problem, evaluator: ExhaustiveEvaluator, order: list[int], first: int
) -> None:
    levels = [group.levels for group in live.structure.groups]
    heads = [(a, b, levels[2][0]) for a in levels[0] for b in levels[1]]
    for place in order:
        answers = evaluator.judge(heads[place], first, evaluator.answers)
    fresh = evaluator_of(live.candidates, live.held_out, BATCH_SIZE).judge(heads[place], first, evaluator.answers)
    assert len(answers) == len(fresh) == evaluator.answers - first
    assert all(np.array_equal(a.values, b.values) for a, b in zip(answers, fresh, strict=True))


def test_networks_whose_plans_cannot_be_told_apart_so_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the network's output layer alone reads it"):
        built(made(tiny_task("residual", levels=2)), tmp_path / "table.npz")
    with pytest.raises(ValueError, match="runs more than once"):
        built(made(tiny_task("shared_layer", levels=2)), tmp_path / "table.npz")
    with pytest.raises(ValueError, match=r"\[6, 8, 9\]"):
        built(made(tiny_task("conv1d")), tmp_path / "table.npz")


def test_a_tables_task_searches_as_a_live_one_does(task: Task, table: Table, live: Problem) -> None:
    tabular = made(task, race=Race(first=0.25, growth=2.0, errors=2.0), batch_size="auto", precision="auto")
    plans = [table.plan(place) for place in range(0, 64, 5)]
    answers = tabular.objective.uncharged.evaluate(plans, against=plans[3])
    for answer, outcome in zip(answers, live.objective.uncharged.evaluate(plans, whole=True), strict=True):
        assert answer.whole
        assert (answer.plan, answer.feasible, answer.cost) == (outcome.plan, outcome.feasible, outcome.cost)
        assert near(answer.metrics, outcome.metrics)
        assert answer.score == pytest.approx(outcome.score, abs=1e-6)
        assert answer.metrics == table.metrics(answer.plan.kept)  # to the bit: regret may be exactly 0
    assert tabular.measured == {"precision": "fp32", "batch_size": BATCH_SIZE, "repair": {"batch_norm": 1.0}}
    assert torch.equal(*(p.pruned(plans[9])(task.example_input) for p in (tabular, live)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"importance": random}, "importance puts units in another order than l1"),
        (
            {"repair": Repair(batch_norm=True)},
            r"repair is {'batch_norm': True}, the table's {'batch_norm': True, 'least_squares'",
        ),
        ({"proxy_samples": 30}, r"the proxy is 30 samples, the table's 40 \(evaluation.proxy_samples"),
        ({"precision": "bf16"}, "evaluation.precision is bf16, the table's fp32"),
        ({"batch_size": 20}, "evaluation.batch_size is 20, the table's 10"),
        ({"workers": 1}, "evaluation.workers is 1, and there is nothing for them to do"),
        ({"round_to": 2}, r"may keep \[2, 4, 6\] of 6 units, in the table \[.*structure.round_to"),
        ({"precision": "bf16", "batch_size": 20}, "evaluation.precision is .*; evaluation.batch_size is"),
    ],
    ids=["importance", "repair", "proxy", "precision", "batch size", "workers", "round_to", "two"],
)
def test_other_settings_are_refused_with_the_way_out(task: Task, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*task.table=null"):
        made(task, **changes)


def test_training_before_judging_is_refused(task: Task) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.training"):
        made(task, training=ShortTraining(steps=1, learning_rate=0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: replace(task, levels=3), r"may keep \[.*\] of . units, in the table \["),
        (lambda task: task.keeping(frozenset({"7"})), r"the groups are \[.*\], the table's \[.*task.keep"),
        (lambda task: task.with_data(_exchanged(task.data)), "the calibration samples are others"),
        (lambda task: replace(task, metric=_always_right), "the metric is .*_always_right, the table's autoprune"),
        (lambda task: replace(task, model=_shifted(task)), "the network's weights are not those that were judged"),
    ],
    ids=["levels", "keep", "data", "metric", "weights"],
)
def test_another_network_or_other_data_are_refused(
    task: Task, change: Callable[[Task], Task], message: str, file: Path
) -> None:
    with pytest.raises(ValueError, match=f"the table {re.escape(str(file))} does not answer for this: .*{message}"):
        made(change(task))


def _exchanged(data: Roles) -> Roles:
    return replace(data, calibration=data.train, train=data.calibration)


def _always_right(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return 1.0


def _shifted(task: Task) -> torch.nn.Module:
    model = tiny_task("conv1d").model
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if name.endswith("bias")).add_(1e-3)
    return model


def test_a_plan_that_is_not_in_the_table_is_an_error(task: Task) -> None:
    ready = made(task)
    plan = replace(ready.structure.dense, kept=(1, 1, 1))
    with pytest.raises(ValueError, match=r"\[1, 1, 1\]"):
        ready.objective.uncharged.evaluate([plan])


@given(share=st.floats(0.3, 1), accuracy=st.booleans(), held_out=st.booleans())
def test_the_best_plan_is_the_best_of_all(table: Table, share: float, accuracy: bool, held_out: bool) -> None:
    score = judge.accuracy if accuracy else judge.kl
    on: On = "held_out" if held_out else "proxy"
    limit = share * float(table.costs["macs"].max())
    plan, best = table.best(limit, score=score, on=on)
    within = [table.plan(p) for p in range(len(table)) if table.costs["macs"].flat[p] <= limit]
    assert plan in within
    scores = {p: score(table.metrics(p.kept, on=on)) for p in within}
    assert best == scores[plan] == max(scores.values())
    regrets = table.regrets(limit, score=score, on=on)
    assert [regrets[table.index(p.kept)] for p in within] == [best - scores[p] for p in within]
    assert np.isinf(regrets).sum() == len(table) - len(within)


def test_limits_that_no_plan_meets_and_unknown_costs_are_errors(table: Table) -> None:
    with pytest.raises(ValueError, match=r"no plan has macs of at most 1; the least is \d+"):
        table.best(1)
    with pytest.raises(ValueError, match=r"costs \['macs', 'params'\], not 'joules'"):
        table.feasible(1, cost="joules")


def test_what_is_saved_is_what_is_loaded(file: Path, table: Table, tmp_path: Path) -> None:
    table.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.npz"]


@given(end=st.floats(0, 0.999), at=st.floats(0, 0.999), flip=st.integers(1, 255))
def test_a_damaged_file_is_refused(file: Path, table: Table, end: float, at: float, flip: int) -> None:
    good, file = file.read_bytes(), file.with_name("damaged.npz")
    file.write_bytes(good[: int(end * len(good))])
    with pytest.raises(ValueError, match=r"damaged.npz"):
        Table.load(file)
    place = int(at * len(good))
    file.write_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
    try:  # what the archive says of itself twice may be wrong once
        loaded = Table.load(file)
    except ValueError:
        return
    assert all(np.array_equal(loaded.judged[on], table.judged[on]) for on in ("proxy", "held_out"))


def test_an_edited_file_is_refused(file: Path, tmp_path: Path) -> None:
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name in ("proxy_kl", "macs", "card"):
        edited = dict(arrays)
        if name == "card":
            edited[name] = np.array(str(arrays[name]).replace("2026-01-01", "2027-01-01"))
        else:
            edited[name] = arrays[name].copy()
            edited[name].flat[3] += 1
        np.savez_compressed(tmp_path / "edited.npz", allow_pickle=True, **edited)
        with pytest.raises(ValueError, match="its checksum is wrong: it was edited, or is not whole"):
            Table.load(tmp_path / "edited.npz")
    with pytest.raises(FileNotFoundError):
        Table.load(tmp_path / "none.npz")


KILLED = """
    import os, sys
    import torch
    from pathlib import Path
    from tests.tabular import test_table
    torch.set_num_threads(1)  # as the suite has it: sums of more threads differ in their last bits

    def told(done, of, per_s):
        if done == 28:
            os.kill(os.getpid(), 9)

    test_table.built(test_table.made_live(), Path(sys.argv[1]), told=told)
"""


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on(file: Path, live: Problem, tmp_path: Path) -> None:
    path = tmp_path / "conv1d.npz"
    journal = path.with_suffix(".building") / "judged"
    stopped = run_python(textwrap.dedent(KILLED), str(path))
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert not path.exists()
    assert journal.stat().st_size == 7 * (8 + 4 * 2 * 4 * 4)
    with journal.open("ab") as written:
        written.write(b"half a record")
    told: list[int] = []
    card = {"criterion": "l1", "date": "2027-12-31"}  # the one that stands there is the table's
    built(live, path, card=card, told=lambda done, of, per_s: told.append(done))
    assert told == list(range(32, 65, 4))
    assert path.read_bytes() == file.read_bytes()


def test_a_build_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    card = {"weights": "a", "date": "x"}
    Journal.opened(tmp_path / "j", card, heads=4, each=2).add(2, np.ones((2, 2, 4), np.float32))
    again = Journal.opened(tmp_path / "j", {**card, "date": "y"}, heads=4, each=2)
    assert again.card == card
    assert again.has.tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="half built of something else: its weights differ; delete the folder"):
        Journal.opened(tmp_path / "j", {**card, "weights": "b"}, heads=4, each=2)
    again.remove()
    assert not (tmp_path / "j").exists()


@pytest.mark.slow
def test_workers_build_the_same(file: Path, live: Problem, tmp_path: Path) -> None:
    built(live, tmp_path / "conv1d.npz", workers=2)
    assert (tmp_path / "conv1d.npz").read_bytes() == file.read_bytes()
