import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from autoprune.cli import conf_dir
from autoprune.comparison.caveats import unequal_terms
from autoprune.comparison.comparability import check_comparable, labels, of_limit, without_copies
from autoprune.comparison.run_summary import DETERMINISTIC
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.testing import small_task
from tests.comparison.run_summaries import runs_of, summary


def named(*settings: dict[str, object], task: str = "digits") -> list[str]:
    return labels([summary("ppo", -0.5, seed=i, settings=s, task=task) for i, s in enumerate(settings)])


def test_one_configuration_is_its_agents_name() -> None:
    assert named({"agent.mode": "one_shot"}, {"agent.mode": "one_shot"}) == ["ppo", "ppo"]
    assert labels([]) == []


def test_two_configurations_are_two_labels() -> None:
    assert named({"agent.mode": "one_shot"}, {"agent.mode": "layerwise"}) == ["ppo mode=one_shot", "ppo mode=layerwise"]
    assert named({"agent.mode": "one_shot"}, {}) == ["ppo mode=one_shot", "ppo mode=None"]


def test_only_as_many_settings_are_named_as_tell_them_apart() -> None:
    first = {"agent.mode": "one_shot", "agent.agent.hyperparameters.gamma": 1.0, "agent.max_log_correction": 1.5}
    second = {"agent.mode": "layerwise", "agent.agent.hyperparameters.gamma": 0.9, "agent.max_log_correction": 1.5}
    third = {**second, "agent.max_log_correction": 3.0}
    assert named(first, second) == ["ppo mode=one_shot", "ppo mode=layerwise"]
    assert len(set(named(first, second, third))) == 3


def test_settings_that_go_with_the_task_are_no_configurations() -> None:
    runs = [
        summary("ppo", -0.5, task=task, settings={"importance._target_": f"autoprune.importance.{name}"})
        for task, name in (("digits", "magnitude"), ("smollm2", "wanda"))
    ]
    assert labels(runs) == ["ppo", "ppo"]


def test_other_sections_are_named_in_full() -> None:
    settings = [{"recover.steps": 10}, {"recover.steps": 99}]
    assert named(*settings) == ["ppo recover.steps=10", "ppo recover.steps=99"]
    settings = [{"repair._target_": f"autoprune.repair.repair.{name}"} for name in ("A", "B")]
    assert named(*settings) == ["ppo repair=A", "ppo repair=B"]


def test_different_limits_are_refused_with_the_way_out() -> None:
    mixed = [summary("ppo", -0.5), summary("random", -0.6, evaluations=100)]
    with pytest.raises(ValueError, match=r"1 with 100, 1 with 300.*evaluations=300"):
        of_limit(mixed, None)
    assert of_limit(mixed, 100) == mixed[1:]
    with pytest.raises(ValueError, match="no run was given 50 evaluations; there are 100, 300"):
        of_limit(mixed, 50)
    with pytest.raises(ValueError, match="no complete runs"):
        of_limit([], None)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"score_name": "accuracy"}, "scored by accuracy and kl"),
        ({"network": "another"}, "different data or networks"),
        ({"dense": {"macs": 1e7, "accuracy": 0.7}}, "different data or networks"),
    ],
)
def test_what_is_not_alike_is_refused(other: dict[str, object], message: str) -> None:
    ours = [summary("ppo", -0.5), summary("random", -0.5, **other)]
    with pytest.raises(ValueError, match=message):
        check_comparable(ours, labels(ours))
    elsewhere = [summary("ppo", -0.5), summary("random", -0.5, task="another", **other)]
    check_comparable(elsewhere, labels(elsewhere))


def test_a_seed_counts_once() -> None:
    twice = [summary("ppo", -0.5), summary("ppo", -0.4)]
    with pytest.raises(ValueError, match=r"at macs:0\.35.*seed 0"):
        check_comparable(twice, labels(twice))
    assert len(without_copies([summary("ppo", -0.5), summary("ppo", -0.5), *twice])) == 2


def test_unequal_terms_are_said() -> None:
    ours, others = (summary(a, -0.5, settings={"recover.steps": s}) for a, s in (("ppo", 10), ("random", 99)))
    (said,) = unequal_terms({"ppo": {ours.cell: [ours]}, "random": {others.cell: [others]}})
    assert said == "Not on equal terms: on digits, recover.steps is 10 for ppo and 99 for random."
    equal = runs_of({"ppo": [-0.5], "random": [-0.5]}, settings={"recover.steps": 10})
    assert unequal_terms({t.agent: {t.cell: [t]} for t in equal}) == []


def test_several_versions_are_said() -> None:
    old, new, unknown = (summary(name, -0.5, version=version) for name, version in VERSIONS)
    labelled = {run.agent: {run.cell: [run]} for run in (old, new, unknown)}
    assert unequal_terms(labelled) == [
        "Not on equal terms: runs are of several versions of autoprune, 0.1.0 for ppo and 0.2.0 for sac."
    ]
    assert unequal_terms({"sac": labelled["sac"], "td3": labelled["td3"]}) == []


VERSIONS = [("ppo", "0.1.0"), ("sac", "0.2.0"), ("td3", "")]


def test_agents_that_no_seed_changes_are_those_of_conf() -> None:
    """Searches that take a prior's plan as it is, and rules that rank units: one run says as much as ten."""
    settings = {path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / "agent").glob("*.yaml")}
    rules = {name for name, each in settings.items() if each["_target_"] == "autoprune.search.prior_plan.search"}
    assert rules == {"uniform", "sensitivity", "closed_form"}
    assert rules <= DETERMINISTIC <= settings.keys()
    problem = Problem.prepare(small_task(), ProblemSpec())
    for name in DETERMINISTIC - {"block_influence", "owl"}:  # which are for transformers
        run = instantiate(settings[name], _convert_="all")
        assert len({run(problem.limited(60), rng=np.random.default_rng(seed)).kept for seed in range(2)}) == 1, name
