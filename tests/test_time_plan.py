"""A run says what it will take before it is begun, and is refused where that is too long."""

from pathlib import Path

import pytest

from autoprune.rehearsal import Rehearsal
from autoprune.time_plan import TimePlan, plan_time
from tests.jobs import job
from tests.tasks import prepared, tiny_task

REHEARSAL = Rehearsal(
    {}, {"dense": 0.002, "smallest": 0.001}, {"dense": 0.2, "smallest": 0.1}, 30, {"dense": 1.0, "smallest": 0.5}
)
PLAN = TimePlan({"prepare": (4, 4), "search": (30, 90), "baselines": (0, 0), "recover": (10, 20)}, evaluations=300)


def test_the_block_has_a_line_for_each_stage_that_takes_time() -> None:
    assert PLAN.describe() == (
        "plan of time:\n"
        "  prepare    4.0 s (taken)\n"
        "  search     30 s to 1 min 30 s (300 evaluations at most, and what the agent takes)\n"
        "  recover    10 s to 20 s\n"
        "  in all     44 s to 1 min 54 s"
    )


@pytest.mark.parametrize(
    ("limit_s", "message"),
    [
        (None, None),
        (44, None),
        (29, r"evaluations=300 cannot end within time_limit_s=29: .* at least 44 s; set evaluations=150 at most"),
        (10, r"all but the search takes 14 s: set baselines=\[uniform\]"),
    ],
)
def test_a_run_that_cannot_end_in_time_is_refused(limit_s: float | None, message: str | None) -> None:
    if message is None:
        PLAN.check(limit_s)
        return
    with pytest.raises(ValueError, match=message):
        PLAN.check(limit_s)


def test_stages_by_hand() -> None:
    problem = prepared(tiny_task())
    dense = problem.objective.uncharged.seconds_per_plan(problem.structure.dense)
    plan = plan_time(problem, REHEARSAL, evaluations=40, baselines=("uniform",))
    assert plan.stages["recover"] == (2 * 30 * 0.1, 2 * 30 * 0.2)
    assert plan.stages["export"] == (0.5, 1.0)
    assert plan.stages["search"][1] == pytest.approx(40 * plan.stages["baselines"][1])  # one uniform plan
    assert plan.stages["prepare"][0] == sum(problem.preparation_seconds.values())
    with_curves = plan_time(problem, REHEARSAL, evaluations=40, baselines=("uniform", "sensitivity")).stages
    assert dense is not None
    assert with_curves["baselines"][1] > plan.stages["baselines"][1] + dense
    assert problem.objective.spent == 0


def test_a_job_prints_its_plan_and_keeps_it(tmp_path: Path) -> None:
    printed: list[str] = []
    work = job(tmp_path / "run", task=tiny_task(), announce=printed.append, compared_with=("uniform",))
    result = work.execute()
    assert printed[0].startswith("plan of time:")
    assert set(result["planned_seconds"]) == {"prepare", "search", "baselines", "recover", "export", "benchmark"}
    assert set(result["planned_seconds"]) - {"prepare"} == set(result["seconds"]) - {"total"}


def test_a_job_that_is_too_long_ends_before_its_first_evaluation(tmp_path: Path) -> None:
    work = job(tmp_path / "run", task=tiny_task(), time_limit_s=1e-3)
    with pytest.raises(ValueError, match=r"cannot end within time_limit_s=0\.001"):
        work.execute()
    assert not (work.run.path / "history.jsonl").exists()
