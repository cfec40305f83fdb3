"""What runs are grouped and sorted by in a tracker, from a real job's offline Weights & Biases run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder
from autoprune.tracked import ARTIFACTS, track_result, tracked_config
from autoprune.tracking import Axis, NoTracker, TrackedRun, wandb_tracking
from tests.jobs import job
from tests.offline_runs import of, records
from tests.tasks import tiny_task

SETTINGS = {
    "seed": 3,
    "evaluations": 15,
    "budget": None,
    "agent": {"_target_": "autoprune.search.rl.search", "env": {"mode": "one_shot"}},
    "recover": {"_target_": "autoprune.recover.fine_tune.fine_tune", "steps": 5},
}
RECORD = {"task": "tiny", "agent": "ppo", "seed": 3, "budget": {"text": "macs:0.5", "limit": 100.0}}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """A run's folder, its result, and what its offline W&B run holds."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    tracked_run = TrackedRun(folder, "run", group="ladder", job_type="search", config=tracked_config(SETTINGS, RECORD))
    tracker = wandb_tracking(tracked_run, mode="offline", project="autoprune", entity=None, tags=())
    result = job(folder, task=tiny_task(), tracker=tracker).execute()
    tracker.close()
    return folder, result, records(folder)


def test_what_one_groups_by_is_plain_and_at_the_top() -> None:
    config = tracked_config(SETTINGS, RECORD)
    assert {key: value for key, value in config.items() if key not in ("settings", "run")} == {
        "task": "tiny", "agent": "ppo", "mode": "one_shot", "budget": "macs:0.5", "evaluations": 15, "seed": 3,
        "regime": "recovered",
    }  # fmt: skip
    assert (config["settings"], config["run"]) == (SETTINGS, RECORD)


def test_a_search_that_learns_nothing_has_no_mode_and_no_recovery_is_the_post_training_regime() -> None:
    recover = {"_target_": "autoprune.recover.recovery.no_recovery"}
    config = tracked_config(SETTINGS | {"agent": {"_target_": "…"}, "recover": recover}, RECORD)
    assert config["mode"] is None
    assert config["regime"] == "post-training"


def test_the_summary_is_of_the_searchs_own_plan_where_searches_are_compared(
    tracked: tuple[Path, dict[str, Any], list[dict[str, Any]]],
) -> None:
    _, result, read = tracked
    summary = _summary(read)
    searched, chosen = result["networks"]["searched"], result["networks"][result["chosen"]]
    assert summary["result/score"] == searched["score"]
    assert summary["result/recovered_score"] == searched["recovered_score"]
    assert summary["result/accuracy_before_searched"] == searched["before"]["accuracy"]
    assert summary["result/accuracy_after"] == chosen["after"]["accuracy"]
    assert summary["result/evaluations"] == result["evaluations"]["spent"] == 15
    assert 0 < summary["result/macs_left"] <= 1
    assert summary["result/macs"] == summary["result/macs_left"] * result["networks"]["dense"]["cost"]["macs"]
    assert summary["result/seconds_total"] == result["seconds"]["total"]
    best = [line["best"] for line in _lines(tracked[0] / "history.jsonl") if line["phase"] == "search"]
    assert summary["search/best"] == {"max": max(best)}


class Logged(NoTracker):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float | None], str, int]] = []

    def log(self, metrics: Mapping[str, float | None], *, axis: Axis, step: int) -> None:
        self.rows.append((dict(metrics), axis, step))


def test_a_policys_worth_is_logged_once_at_the_end(
    tracked: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    plan, run = PruningPlan(groups=("a",), units=(4,), kept=(2,)), RunFolder(tmp_path)
    with_policy, without = Logged(), Logged()
    track_result(with_policy, tracked[1] | {"policy": {"score": -0.1, "uniform": -0.3, "gap": 0.0}}, plan, run=run)
    track_result(without, tracked[1], plan, run=run)
    assert with_policy.rows == [({"policy/best": -0.1, "policy/over_uniform": pytest.approx(0.2)}, "evaluation", 15)]
    assert without.rows == []


def test_best_so_far_is_plotted_against_evaluations(tracked: tuple[Path, dict[str, Any], list[dict[str, Any]]]) -> None:
    rows = [record["item"] for record in of(tracked[2], "history")]
    searched = [row for row in rows if "search/best" in row]
    assert [row["evaluation"] for row in searched] == list(range(1, 16))
    best = [row["search/best"] for row in searched]
    assert best == sorted(best)
    axes = {metric.get("name"): metric.get("step_metric") for metric in of(tracked[2], "metric")}
    assert axes["search/best"] == "evaluation"


def test_the_plan_is_a_table_and_a_picture_and_the_artifacts_are_there(
    tracked: tuple[Path, dict[str, Any], list[dict[str, Any]]],
) -> None:
    _, result, read = tracked
    summary = _summary(read)
    assert (summary["plan._type"], summary["plan.ncols"]) == ("table-file", 4)
    assert summary["plan.nrows"] == len(result["networks"][result["chosen"]]["plan"])
    charts = {key: value for record in of(read, "config") for key, value in record["update"].items()}
    assert charts["_wandb.visualize.plan_sparsity"]["panel_config"]["panelDefId"] == "wandb/bar/v0"
    kinds = {artifact["type"] for artifact in of(read, "artifact")}
    assert {kind for _, _, kind in ARTIFACTS} - {"policy"} <= kinds  # this search learned nothing


def _summary(read: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for record in of(read, "summary") for key, value in record["update"].items()}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
