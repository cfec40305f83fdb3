"""A whole study on a tiny task, with real files: what it writes, and that it goes on where it stopped."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from autoprune.cli import conf_dir
from autoprune.evaluation import judge
from autoprune.fidelity.proxies import losses_alone
from autoprune.fidelity.study import Level, Study, halved
from autoprune.fidelity.summary import summarise
from autoprune.problem.spec import DEFAULT_REPAIR
from autoprune.recover.fine_tune import fine_tune
from autoprune.recover.recovery import Recovery
from autoprune.repair.repair import Repair
from autoprune.report.fidelity_page import write_fidelity_page
from autoprune.runs import RunFolder
from autoprune.task.shipped import digits
from autoprune.task.task import Task
from tests.tasks import prepared, tiny_task

SCORES = {"accuracy": judge.accuracy, "loss": judge.loss, "kl": judge.kl, "agreement": judge.agreement}
DENSE = [8, 3, 4]
TRIALS = (4 * 2 + 2) + (3 * 2 + 2)  # plans × two lengths, and two of them once more for longest, at two budgets


def recover(steps: int) -> Recovery:
    return partial(
        fine_tune, steps=steps, learning_rate=0.05, weight_decay=0.0, distillation=0.5, temperature=2.0, bf16=False
    )


def study(folder: Path, task: Task, **changes: Any) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "task": task,
        "ready": lambda budget, repair, training=None: prepared(task, budget=budget, repair=repair, training=training),
        "repairs": {"none": Repair(batch_norm=False), "batch_norm": Repair(batch_norm=True)},
        "scores": SCORES,
        "trained": {},
        "default": ("batch_norm", "kl"),
        "start": "batch_norm",
        "recover": recover,
        "levels": [Level(None, plans=4, repeated=2), Level(None, plans=3, repeated=2)],
        "lengths": [0, 2],
        "seeds": 2,
        "seed": 0,
        "conditions": {"importance": "l1"},
        "run": RunFolder(folder),
    }
    return Study(**(settings | changes))


@pytest.fixture(scope="module")
def task() -> Task:
    return tiny_task("grouped")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Study:
    made = study(tmp_path_factory.mktemp("study"), task)
    made.execute()
    return made


def read(made: Study) -> Any:
    return made.run.read_json("fidelity.json")


def test_every_trial_and_every_answer_is_one_line(finished: Study) -> None:
    truth, proxies = finished.run.read_lines("truth.jsonl"), finished.run.read_lines("proxies.jsonl")
    assert len(truth) == TRIALS == len(finished.run.read_lines("seconds.jsonl"))
    assert len(proxies) == 2 * (4 + 3)
    assert read(finished)["trials"] == {"done": TRIALS, "of": TRIALS}


def test_every_repair_and_score_is_ranked_at_every_budget_and_length(finished: Study) -> None:
    result = read(finished)
    assert list(result["budgets"]) == ["macs:0.5", "macs:0.25"]
    for level in result["budgets"].values():
        assert list(level["truth"]) == ["0", "2"]
        for found in level["truth"].values():
            assert set(found["rankings"]) == {"none", "batch_norm"}
            for scores in found["rankings"].values():
                assert set(scores) == set(SCORES)
                assert all(-1 <= ranking["tau"]["value"] <= 1 for ranking in scores.values() if ranking["tau"]["value"])


def test_the_truth_is_held_out_and_its_values_are_those_of_the_trials(finished: Study, task: Task) -> None:
    result = read(finished)
    samples = result["samples"]
    assert samples["proxy"] + samples["held_out"] == len(task.data.search)
    lines = [line for line in finished.run.read_lines("truth.jsonl") if line["budget"] == "macs:0.5"]
    assert {line["held_out"]["samples"] for line in lines} == {samples["held_out"]}
    after = [line["held_out"]["accuracy"] for line in lines if (line["plan"], line["steps"]) == (0, 2)]
    assert result["budgets"]["macs:0.5"]["truth"]["2"]["accuracy"][0] == after
    assert len(after) == 2


def test_before_recovery_nothing_is_tried_twice(finished: Study) -> None:
    assert read(finished)["budgets"]["macs:0.5"]["truth"]["0"]["chance"]["accuracy"]["noise"] is None


def test_additivity_is_of_the_plans_own_groups(finished: Study) -> None:
    singles = {tuple(line["kept"]): line["kl"] for line in finished.run.read_lines("singles.jsonl")}
    plans, result = finished.run.read_json("plans.json")["macs:0.5"], read(finished)
    alone = losses_alone(singles, tuple(result["units"]), [tuple(kept) for kept in plans])
    assert result["additivity"]["sum"] == pytest.approx(alone.sum(axis=1))
    joint = [line for line in finished.run.read_lines("proxies.jsonl") if line["proxy"] == "batch_norm"]
    assert result["additivity"]["joint"] == [line["kl"] for line in joint if line["budget"] == "macs:0.5"]
    assert set(singles.values()) != {0.0}


def test_a_study_that_was_cut_goes_on_and_ends_the_same(finished: Study, tmp_path: Path, task: Task) -> None:
    class Cut(Exception):
        pass

    left = 4

    def interrupted(steps: int) -> Recovery:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut
        return recover(steps)

    with pytest.raises(Cut):
        study(tmp_path, task, recover=interrupted).execute()
    done = (tmp_path / "truth.jsonl").read_text()
    assert 0 < len(done.splitlines()) < TRIALS
    part = summarise(RunFolder(tmp_path), scores=SCORES)
    assert part["recommendation"] is None
    assert "An unfinished study" in write_fidelity_page(RunFolder(tmp_path)).read_text()
    resumed = study(tmp_path, task)
    resumed.execute()
    assert (tmp_path / "truth.jsonl").read_text().startswith(done)
    assert without_times(read(resumed)) == without_times(read(finished))


def test_a_finished_study_computes_nothing_again(finished: Study, task: Task) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("computed again")

    before = read(finished)
    replace(finished, recover=never).execute()
    assert read(finished) == before


def test_only_plans_and_truth_are_needed_to_go_on(finished: Study, tmp_path: Path, task: Task) -> None:
    for name in ("plans.json", "truth.jsonl"):
        (tmp_path / name).write_text((finished.run.path / name).read_text())
    resumed = study(tmp_path, task)
    resumed.execute()
    assert (tmp_path / "truth.jsonl").read_text() == (finished.run.path / "truth.jsonl").read_text()
    assert without_times(read(resumed)) == without_times(read(finished))


def damaged(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged("plans.json", lambda plans: {b: p[:-1] for b, p in plans.items()}), "are asked for"),
        (damaged("plans.json", lambda plans: {b: [k[:-1] for k in p] for b, p in plans.items()}), r"shape \[2\]"),
        (damaged("plans.json", lambda plans: {b: [DENSE] * len(p) for b, p in plans.items()}), "more than"),
        (damaged("plans.json", lambda plans: {b: p[::-1] for b, p in plans.items()}), "disagree on plan"),
        (damaged("study.json", lambda known: known | {"conditions": {"importance": "l2"}}), "other \\['importance'\\]"),
    ],
)  # fmt: skip
def test_another_studys_files_are_an_error(
    finished: Study, tmp_path: Path, task: Task, damage: Callable[[Path], None], said: str
) -> None:
    for name in ("plans.json", "truth.jsonl", "study.json"):
        (tmp_path / name).write_text((finished.run.path / name).read_text())
    damage(tmp_path)
    with pytest.raises(ValueError, match=said):
        study(tmp_path, task).execute()


def test_truth_of_other_samples_is_an_error(finished: Study, tmp_path: Path, task: Task) -> None:
    for name in ("plans.json", "truth.jsonl"):
        (tmp_path / name).write_text((finished.run.path / name).read_text())

    def other(budget: Any, repair: Any, training: Any = None) -> Any:
        return prepared(task, budget=budget, repair=repair, proxy_samples=30)

    with pytest.raises(ValueError, match="measured on 20 held-out samples, now there are 30"):
        study(tmp_path, task, ready=other).execute()


def test_a_default_that_is_not_compared_is_an_error(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ValueError, match="'taylor'"):
        study(tmp_path, task, default=("none", "taylor")).execute()


def test_a_plan_that_cannot_be_judged_ranks_last(finished: Study, tmp_path: Path) -> None:
    for file in finished.run.path.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    lines = finished.run.read_lines("proxies.jsonl")
    broken = next(line for line in lines if (line["proxy"], line["plan"], line["budget"]) == ("none", 1, "macs:0.5"))
    broken |= {"accuracy": None, "loss": None, "kl": None, "agreement": None, "failed": "NaN"}
    (tmp_path / "proxies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    proxy = summarise(RunFolder(tmp_path), scores=SCORES)["budgets"]["macs:0.5"]["proxies"]["none"]
    assert proxy["failed"] == 1
    assert proxy["scores"]["kl"][1] == np.min(proxy["scores"]["kl"])


def test_half_a_budget(task: Task) -> None:
    assert halved(prepared(task, budget="macs:0.35")) == "macs:0.175"
    assert halved(prepared(task, budget="params:0.5")) == "params:0.25"


def test_the_configuration_composes_and_its_default_is_the_searches() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        composed = compose("fidelity", overrides=["task=digits", "recover=fine_tune"])
        searches = compose("config", return_hydra_config=True).hydra.runtime.choices
    settings: Any = OmegaConf.to_container(composed, resolve=True)
    assert settings["default"]["score"] == searches["score"]
    assert instantiate(settings["repairs"][settings["default"]["repair"]]) == DEFAULT_REPAIR.options[0]
    assert set(settings["default"].values()) <= settings["repairs"].keys() | settings["scores"].keys()
    parts = {
        name: instantiate(settings[name], _convert_="all") for name in ("repairs", "scores", "trained", "evaluation")
    }
    assert set(parts["repairs"]) == {"none", "batch_norm", "least_squares", "least_squares_batch_norm"}
    assert set(parts["scores"]) == set(SCORES)
    assert parts["evaluation"].race is None  # every plan is judged on all samples
    assert settings["recover"]["steps"] is None  # the task's own, which the study's longest recovery is
    assert Task.__dataclass_fields__["recovery_steps"].default == max(settings["lengths"])


@pytest.mark.slow
def test_digits_in_seconds(tmp_path: Path) -> None:
    made = study(tmp_path, digits(), levels=[Level(None, plans=8, repeated=2)], lengths=[0, 20])
    found = made.execute()
    assert found["recommendation"]["repair"] in ("none", "batch_norm")
    assert "recovery" in write_fidelity_page(made.run).read_text()


def without_times(result: Any) -> Any:
    result = copy.deepcopy(result)
    del result["seconds"]
    for level in result["budgets"].values():
        for proxy in level["proxies"].values():
            del proxy["seconds"]
    del result["recommendation"]  # among equals the cheaper is chosen, and costs are measured times
    return result
