import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation.judge import Judge
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair, measure_batch_norms
from autoprune.structure.edit import shrink
from autoprune.task.task import Role
from tests.models import PRUNABLE, random_plan
from tests.tasks import prepared, tiny_task

SOLVED = LeastSquares(ridge=1e-3, rows=4096)


def test_batch_norm_repair_in_the_forward_pass_and_for_good_agree() -> None:
    """Judged on one batch, a candidate's batch statistics are what the handed-out network measures on that batch."""
    task = tiny_task()
    whole = prepared(task, batch_size=40)
    plan = random_plan(whole.structure, seed=3)
    network = shrink(task.model, whole.structure, plan, whole.candidates.ranking)
    proxy = task.data.search[:40]
    measure_batch_norms(network, proxy)
    assert not any(layer.training for layer in network.modules())
    # running variances are unbiased (divided by n − 1), the batch's own are not: close, not equal
    assert Judge(task, proxy)(network).kl == pytest.approx(
        whole.objective.uncharged.evaluate([plan])[0].metrics.kl, rel=0.05
    )


def test_batch_norm_repair_measures_the_calibration_data() -> None:
    network = PRUNABLE["residual"].model()
    role = Role(torch.randn(2_000, 3, 8, 8) * 3 + 5, torch.zeros(2_000, dtype=torch.long))
    captured: list[Tensor] = []
    first = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    measure_batch_norms(network, role)
    first.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    with torch.no_grad():
        network(role.inputs)
    assert first.running_mean is not None
    assert first.running_var is not None
    assert torch.allclose(first.running_mean, captured[0].mean(dim=(0, 2, 3)), atol=1e-3)
    assert torch.allclose(first.running_var, captured[0].var(dim=(0, 2, 3)), rtol=1e-2)
    assert first.momentum == 0.1


def test_no_repair_is_the_shrunk_network() -> None:
    ready = prepared(tiny_task(), repair=Repair(batch_norm=False))
    plan = random_plan(ready.structure, seed=0)
    expected = shrink(ready.task.model, ready.structure, plan, ready.candidates.ranking).state_dict()
    found = ready.pruned(plan).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["residual", "dense", "grouped", "flattened", "tokens", "conv1d", "separable"])
def test_least_squares_bring_the_outputs_nearer_to_the_dense_ones(name: str) -> None:
    task = tiny_task(name)
    dense = {key: value.clone() for key, value in task.model.state_dict().items()}
    repairs = [Repair(batch_norm=False, least_squares=solved) for solved in (None, SOLVED)]
    without, repaired = (prepared(task, repair=repair) for repair in repairs)
    judge = Judge(task, task.data.calibration)
    lost = [0.0, 0.0]
    for seed in range(6):
        plan = random_plan(without.structure, seed=seed)
        for which, ready in enumerate((without, repaired)):
            lost[which] += judge(ready.pruned(plan)).kl
    assert lost[1] < lost[0]
    assert all(torch.equal(value, dense[key]) for key, value in task.model.state_dict().items())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_what_is_judged_is_what_is_handed_out(batch_norm: bool) -> None:
    """Repaired by least squares, and where BatchNorm is measured again, on the same samples."""
    task = tiny_task()
    ready = prepared(task, repair=Repair(batch_norm=batch_norm, least_squares=SOLVED), batch_size=40)
    plan = random_plan(ready.structure, seed=1)
    network = ready.pruned(plan)
    proxy = task.data.search[:40]
    if batch_norm:
        measure_batch_norms(network, proxy)
    expected = ready.objective.uncharged.evaluate([plan])[0].metrics.kl
    assert Judge(task, proxy)(network).kl == pytest.approx(expected, rel=0.05 if batch_norm else 1e-3)
