"""The repaired dense network is the dense network: statistics far from those that it was trained with are noticed."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.problem.problem import Problem
from autoprune.problem.repair_choice import SAME_KL
from autoprune.problem.spec import DEFAULT_REPAIR
from autoprune.repair.repair import AutomaticRepair, Repair
from autoprune.task.task import Role, Roles, Task
from tests.models import random_plan
from tests.tasks import prepared, tiny_task


def inverted(expanded: int) -> nn.Sequential:
    """A block as EfficientNet has them: expansion, a depthwise convolution and a projection, each with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(8, expanded, 1, bias=False), nn.BatchNorm2d(expanded), nn.SiLU(),
        nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False), nn.BatchNorm2d(expanded), nn.SiLU(),
        nn.Conv2d(expanded, 8, 1, bias=False), nn.BatchNorm2d(8),
    )  # fmt: skip


class Narrow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.blocks = nn.ModuleList(inverted(16) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        logits: torch.Tensor = 3 * self.head(x.mean(dim=(2, 3)))
        return logits


def task(*, narrow: bool, samples: int = 64) -> Task:
    """Statistics are of wide images; those of calibration are wide too, or all nearly the same and dark."""
    torch.manual_seed(0)
    network, wide = Narrow(), torch.randn(400, 3, 8, 8) * torch.rand(400, 1, 1, 1) * 4 + torch.randn(400, 3, 1, 1)
    network.train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        network(wide)
    images = {"train": wide[:100], "search": wide[100:250], "test": wide[250:]}
    images["calibration"] = 0.1 * torch.randn(samples, 3, 8, 8) - 1.5 if narrow else torch.randn(samples, 3, 8, 8) * 2
    roles = {name: Role(x, torch.zeros(len(x), dtype=torch.int64)) for name, x in images.items()}
    return Task(network.eval(), wide[:1], Roles(**roles), name="narrow", budget="macs:0.5")


def ready(made: Task, repair: Any = DEFAULT_REPAIR) -> Problem:
    return prepared(made, repair=repair, proxy_samples=100, batch_size=50)


def dense_agreement(problem: Problem) -> float:
    return Judge(problem.task, problem.task.data.test)(problem.pruned(problem.structure.dense)).agreement


def test_narrow_calibration_leaves_the_networks_own_statistics() -> None:
    first = DEFAULT_REPAIR.options[0]
    by_name, automatic = ready(task(narrow=True), first), ready(task(narrow=True))
    assert dense_agreement(by_name) < 0.8, "the control: measured statistics alone change the dense network"
    assert dense_agreement(automatic) > 0.95
    record = automatic.measured["repair"]
    assert record["batch_norm"] == float(automatic.candidates.repair.batch_norm) < 1
    assert record["dense_kl"] <= SAME_KL < by_name.measured["repair"]["dense_kl"]
    assert set(record["mild_kl"]) == {"1", "0.5", "0"}
    outcome = automatic.objective.uncharged.evaluate([automatic.structure.dense])[0]
    assert outcome.metrics.kl <= SAME_KL


def test_where_statistics_are_right_the_first_repair_stays() -> None:
    for made in (tiny_task("residual"), tiny_task("flattened")):
        problem = prepared(made, repair=DEFAULT_REPAIR)
        assert problem.candidates.repair == DEFAULT_REPAIR.options[0] or problem.measured["repair"]["mild_kl"]
    without_norms = prepared(tiny_task("flattened"), repair=DEFAULT_REPAIR)
    assert without_norms.candidates.repair == DEFAULT_REPAIR.options[0]
    assert without_norms.measured["repair"]["dense_kl"] < 1e-4
    assert without_norms.measured["repair"]["parts"] == ["least_squares"], "it has no statistics to measure"
    norms_alone = prepared(tiny_task("residual"), repair=Repair(batch_norm=0.5)).measured["repair"]["parts"]
    assert norms_alone == ["batch_norm (50 % of its statistics measured on the pruned network)"]


def test_a_repair_by_name_that_changes_the_dense_network_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        problem = ready(task(narrow=True), Repair(batch_norm=True))
    assert problem.candidates.repair == Repair(batch_norm=True)
    assert "repair=auto" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ready(task(narrow=True), Repair(batch_norm=False))
    assert not caplog.text


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_a_share_of_statistics_is_judged_as_it_is_handed_out(share: float) -> None:
    """On a single batch that is the calibration role as well; running variances are unbiased, a batch's are not."""
    made = tiny_task("residual")
    made = replace(made, data=replace(made.data, calibration=made.data.search[:40], search=made.data.search[40:]))
    problem = prepared(made, repair=Repair(batch_norm=share), proxy_samples=10)
    batch = made.data.calibration
    evaluator = replace(problem.candidates, proxy=batch).evaluator(precision="fp32", batch_size=40)
    for seed in range(3):
        plan = random_plan(problem.structure, seed=seed)
        judged = evaluator.judge(plan.kept, 0, 1)[0].metrics
        assert judged.kl == pytest.approx(Judge(made, batch)(problem.pruned(plan)).kl, rel=0.05)
        again = evaluator.judge(plan.kept, 0, 1)[0].metrics
        assert again == judged, "statistics do not pile up from batch to batch"


def test_one_sample_has_no_statistics() -> None:
    roles = Roles.split(torch.randn(9, 6), torch.arange(9) % 2)
    network = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    few = Task(network, torch.zeros(1, 6), roles, budget="macs:0.5")
    assert len(roles.calibration) == 1
    assert not prepared(few, repair=DEFAULT_REPAIR, proxy_samples=1, batch_size=2).candidates.repair.batch_norm
    with pytest.raises(ValueError, match=r"cannot be measured on one sample.*repair=least_squares"):
        prepared(few, repair=Repair(batch_norm=True), proxy_samples=1, batch_size=2)


def test_shares_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"repair\.batch_norm.*\[0, 1\].*1\.5"):
        Repair(batch_norm=1.5)
    with pytest.raises(ValueError, match=r"repair\.options is empty"):
        AutomaticRepair(())


def test_a_network_that_bf16_cannot_run_falls_back_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoBf16(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype == torch.bfloat16:
                raise RuntimeError("\"slow_conv3d\" not implemented for 'BFloat16'")
            return x

    made = tiny_task("plain")
    model = nn.Sequential(*made.model, NoBf16()) if isinstance(made.model, nn.Sequential) else None
    assert model is not None
    made = replace(made, model=model.eval())
    monkeypatch.setattr("autoprune.problem.objective_builder.supports_bf16", lambda device: True)
    assert prepared(made, precision="auto").measured["precision"] == "fp32"
    with pytest.raises(ValueError, match=r"evaluation\.precision=bf16"):
        prepared(made, precision="bf16")
