import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation import judge
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.repair import BatchNormRepair, NoRepair
from autoprune.structure.edit import shrink
from autoprune.task.task import Role, Roles
from tests.models import PRUNABLE, random_plan
from tests.tasks import prepared, tiny_task


@pytest.fixture(params=["residual", "separable", "dense", "flattened"])
def ready(request: pytest.FixtureRequest) -> Any:
    return prepared(tiny_task(request.param), repair=NoRepair())


def test_outcomes_are_those_of_the_shrunk_network(ready: Any) -> None:
    judged = Judge(ready.task, ready.task.data.search[:40])
    for seed in range(5):
        plan = random_plan(ready.structure, seed=seed)
        network = shrink(ready.task.model, ready.structure, plan, ready.ranking)
        expected, outcome = judged(network), ready.objective.evaluate([plan])[0]
        assert outcome.metrics.kl == pytest.approx(expected.kl, rel=1e-3, abs=1e-5)
        assert outcome.metrics.loss == pytest.approx(expected.loss, rel=1e-3)
        assert outcome.cost["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_dense_plan_loses_nothing(ready: Any) -> None:
    metrics = ready.objective.evaluate([ready.structure.dense])[0].metrics
    assert metrics.kl == pytest.approx(0, abs=1e-6)
    assert metrics.agreement == 1


def test_a_plan_is_computed_once(ready: Any) -> None:
    plan = random_plan(ready.structure, seed=0)
    first, second = ready.objective.evaluate([plan, plan])
    assert first is second is ready.objective.evaluate([plan])[0]


def test_rewards_see_neither_the_test_role_nor_the_held_out_samples() -> None:
    task = tiny_task()
    ready = prepared(task)
    plans = [random_plan(ready.structure, seed=seed) for seed in range(4)]
    poisoned = dict(task.data.items())
    poisoned["test"] = _nan(task.data.test)
    inputs = task.data.search.inputs.clone()
    inputs[40:] = torch.nan
    poisoned["search"] = Role(inputs, task.data.search.targets, task.data.search.ids)
    again = prepared(task.with_data(Roles(**poisoned)))
    expected = [dataclasses.replace(o, seconds=0) for o in ready.objective.evaluate(plans)]
    assert [dataclasses.replace(o, seconds=0) for o in again.objective.evaluate(plans)] == expected


def test_feasible_means_inside_the_budget() -> None:
    ready = prepared(tiny_task(), budget="params:0.5")
    for seed in range(20):
        outcome = ready.objective.evaluate([random_plan(ready.structure, seed=seed)])[0]
        assert outcome.feasible == (outcome.cost["params"] <= ready.projector.budget.limit)


def test_outputs_that_are_not_finite_are_an_error() -> None:
    ready = prepared(tiny_task(), repair=NoRepair())
    for layer in ready.objective._ordered.network.modules():
        if "weight" in vars(layer) and layer.weight is not None:
            layer.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"cannot be judged.*precision=fp32"):
        ready.objective.evaluate([random_plan(ready.structure, seed=0)])


def test_a_dense_network_with_broken_outputs_is_an_error() -> None:
    task = tiny_task()
    task.data.search.inputs[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        prepared(task)


def test_every_score_says_more_is_better() -> None:
    ready = prepared(tiny_task(), repair=NoRepair())
    worse = ready.objective.evaluate([ready.structure.plan(ready.structure.floor)])[0].metrics
    same = ready.objective.evaluate([ready.structure.dense])[0].metrics
    assert judge.kl(same) > judge.kl(worse)
    assert judge.agreement(same) == 1 >= judge.agreement(worse)
    assert judge.loss(same) == -same.loss
    assert judge.accuracy(same) == same.accuracy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp8"}, r"must be one of \['auto', 'fp32', 'bf16'\], got 'fp8'"),
        ({"proxy_samples": 60}, r"must be in \[1, 59\].*got 60"),
        ({"proxy_samples": 0}, r"must be in \[1, 59\].*got 0"),
        ({"round_to": 0}, "at least 1, got 0"),
        ({"budget": "watts:0.5"}, "unknown cost 'watts'"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tiny_task(), **changes)


def test_a_task_without_a_budget_needs_one() -> None:
    with pytest.raises(ValueError, match=r"suggests no budget; give one, such as budget=macs:0\.5"):
        prepared(tiny_task(budget=None))


def test_batch_norm_repair_in_the_forward_pass_and_for_good_agree() -> None:
    """Judged on one batch, a candidate's batch statistics are what the handed-out network measures on that batch."""
    task = tiny_task()
    whole = prepared(task, batch_size=40)
    plan = random_plan(whole.structure, seed=3)
    network = shrink(task.model, whole.structure, plan, whole.ranking)
    proxy = task.data.search[:40]
    BatchNormRepair().apply(network, proxy)
    assert not any(layer.training for layer in network.modules())
    # running variances are unbiased (divided by n − 1), the batch's own are not: close, not equal
    assert Judge(task, proxy)(network).kl == pytest.approx(whole.objective.evaluate([plan])[0].metrics.kl, rel=0.05)


def test_batch_norm_repair_measures_the_calibration_data() -> None:
    network = PRUNABLE["residual"].model()
    role = Role(torch.randn(2_000, 3, 8, 8) * 3 + 5, torch.zeros(2_000, dtype=torch.long))
    captured: list[Tensor] = []
    first = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    BatchNormRepair().apply(network, role)
    first.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    with torch.no_grad():
        network(role.inputs)
    assert torch.allclose(first.running_mean, captured[0].mean(dim=(0, 2, 3)), atol=1e-3)
    assert torch.allclose(first.running_var, captured[0].var(dim=(0, 2, 3)), rtol=1e-2)


def test_bf16_ranks_plans_as_fp32_does() -> None:
    task = tiny_task("separable")
    plans = [random_plan(prepared(task).structure, seed=seed) for seed in range(10)]
    exact, rough = (
        torch.tensor([o.score for o in prepared(task, precision=p).objective.evaluate(plans)]) for p in ("fp32", "bf16")
    )
    assert torch.corrcoef(torch.stack([exact, rough]))[0, 1] > 0.99


def _nan(role: Role) -> Role:
    return Role(torch.full_like(role.inputs, torch.nan), role.targets, role.ids)
