"""The defaults of a problem: conf/config.yaml lists those that stand in Python, for the person who reads them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from autoprune.cli.parts import conf_dir, spec_of
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec, StructureSettings
from autoprune.problem.step_times import StepTimes
from autoprune.repair.repair import Repair
from tests.tasks import tiny_task


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        settings: Any = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    return dict(settings)


def comparable(value: Any) -> Any:
    """Partial functions are equal where they call the same with the same."""
    if isinstance(value, partial):
        return value.func, value.args, {name: comparable(each) for name, each in value.keywords.items()}
    return value


@pytest.mark.parametrize("field", ProblemSpec.__dataclass_fields__)
def test_the_configuration_lists_the_defaults_that_stand_in_python(field: str) -> None:
    here, there = (getattr(spec, field) for spec in (ProblemSpec(), spec_of(composed())))
    if field in ("score", "reward"):  # which Hydra makes partials of
        there = there.func
    assert comparable(there) == comparable(here)


def test_another_setting_is_another_spec() -> None:
    """The control of the test above."""
    other = spec_of(composed("repair=batch_norm", "structure.min_units=2", "evaluation.workers=1"))
    assert other.repair == Repair(batch_norm=True) != ProblemSpec().repair
    assert other.structure == StructureSettings(min_units=2)
    assert other.evaluation != ProblemSpec().evaluation


def test_a_list_of_budgets_is_several(tmp_path: Path) -> None:
    spec = ProblemSpec(budget=["macs:0.5", "params:0.6"])  # type: ignore[arg-type]
    assert spec.budget == ("macs:0.5", "params:0.6")
    with pytest.raises(ValueError, match="an empty list is no budget"):
        Problem.prepare(tiny_task(), ProblemSpec(budget=()))


def test_a_search_gets_the_same_problem_with_a_limit_of_its_own(tmp_path: Path) -> None:
    problem = Problem.prepare(tiny_task(), ProblemSpec(evaluation=composed_evaluation()))
    limited = problem.limited(3, folder=tmp_path, seed=5)
    assert (limited.objective.limit, limited.seed, limited.folder) == (3, 5, tmp_path)
    assert limited.objective.uncharged is problem.objective.uncharged
    limited.objective.evaluate([problem.structure.dense])
    assert (limited.objective.spent, problem.objective.spent) == (1, 0)


def composed_evaluation() -> Any:
    settings = composed("evaluation.proxy_samples=40", "evaluation.batch_size=40", "evaluation.store=null")
    return spec_of(settings).evaluation


def test_preparing_says_which_step_it_takes_and_how_long_each_took() -> None:
    seen: list[tuple[str, int, int]] = []
    spec = ProblemSpec(evaluation=composed_evaluation())
    problem = Problem.prepare(tiny_task(), spec, progress=lambda *step: seen.append(step))
    steps = ["structure", "costs", "ranking", "repair", "measuring"]
    assert list(dict.fromkeys(step for step, _, _ in seen)) == steps
    inside = [(done, of) for step, done, of in seen[1:] if step == "structure"]
    assert inside[-1] == (len(inside) - 1, len(inside) - 1)  # one call a layer that reads, and one at the end
    assert len(inside) > 2
    assert list(problem.preparation_seconds) == steps
    assert min(problem.preparation_seconds.values()) >= 0
    assert problem.preparation_seconds["structure"] > 0


def test_the_seconds_of_a_step_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 20.25])
    monkeypatch.setattr("autoprune.problem.step_times.time.perf_counter", lambda: next(clock))
    times = StepTimes(lambda step, done, of: None)
    assert times.take("first", max, 3, 4) == 4
    assert times.take("second", sorted, [2, 1], reverse=True) == [2, 1]
    assert times.seconds == {"first": 2.5, "second": 0.25}
