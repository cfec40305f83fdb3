"""What would fail late is said early, or left out; what fails late all the same loses nothing."""

import errno
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.final_networks import RecoveredNetworks, UnseenJudge
from autoprune.quantize.quantized_network import no_quantization
from autoprune.records import Ledgers
from autoprune.recover.recovery import no_recovery
from autoprune.rehearsal import RunStages, _broken_rows, _samples, rehearse
from autoprune.report.contents import read_contents
from autoprune.report.progress import announced
from autoprune.report.wording import headline
from autoprune.runs import RunFolder
from autoprune.task.task import Role, Task
from autoprune.tracked import summary_of
from tests.jobs import RECOVER, job
from tests.tasks import prepared, tiny_task


def with_role(task: Task, name: str, role: Role) -> Task:
    return replace(task, data=replace(task.data, **{name: role}))


def broken(role: Role, row: int) -> Role:
    inputs = role.inputs.clone()
    inputs[row, 0] = torch.nan
    return Role(inputs, role.targets)


def test_images_whose_channels_come_last_in_memory_are_looked_at() -> None:
    role = broken(tiny_task().data.test, 7)
    assert _broken_rows(role.inputs.contiguous(memory_format=torch.channels_last)) == [7]


@pytest.mark.parametrize(("name", "row"), [("test", 7), ("train", 60), ("calibration", 0), ("search", 59)])
def test_broken_samples_are_named_before_the_search(tmp_path: Path, name: str, row: int) -> None:
    task = tiny_task()
    work = job(tmp_path / "run", task=task, compared_with=("uniform",))
    damaged = with_role(task, name, broken(getattr(task.data, name), row))
    with pytest.raises(ValueError, match=rf"the {name} role has 1 of \d+ samples.*row {row};.*Roles\({name}="):
        replace(work, problem=replace(work.problem, task=damaged)).execute()
    assert not (work.run.path / "history.jsonl").exists()


def of_what_is_there(outputs: Tensor, targets: Tensor) -> Tensor:
    there = ~targets.isnan()
    return ((outputs[:, 0] - targets.nan_to_num()) ** 2)[there].mean()


@pytest.mark.parametrize("reads", [True, False])
def test_gaps_in_targets_are_left_to_a_loss_that_knows_them(tmp_path: Path, reads: bool) -> None:
    tiny = tiny_task()
    roles = {name: role.with_targets(role.inputs.mean((1, 2, 3))) for name, role in tiny.data.items()}
    for role in roles.values():
        role.targets[::5] = torch.nan
    own: dict[str, Any] = {"metric": lambda o, t: -float(of_what_is_there(o, t)), "loss": of_what_is_there}
    if not reads:
        own = {
            "loss": lambda o, t: ((o[:, 0] - t) ** 2).nansum(),
            "metric": lambda o, t: -float(((o[:, 0] - t) ** 2).mean()),
        }
    task = Task(tiny.model, tiny.example_input, type(tiny.data)(**roles), kind="regression", budget="macs:0.6", **own)
    work = job(tmp_path / "run", task=task, compared_with=("uniform",))
    if reads:
        assert work.execute()["failed"] == {}
    else:
        with pytest.raises(ValueError, match=r"the train role has \d+ of \d+ samples with NaN or infinity"):
            work.execute()


@pytest.mark.parametrize("always", [True, False])
def test_a_metric_that_is_no_number_anywhere_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """Of few samples it may be none, as the AUC of one class."""
    monkeypatch.setattr("autoprune.rehearsal.SAMPLES", 8)
    own = tiny_task(metric=lambda _, targets: math.nan if always or len(targets) < 40 else 0.5, onnx=False)
    left_out = rehearse(own, {"dense": own.model}, recover=no_recovery, folder=tmp_path).left_out
    assert list(left_out) == ["metric"] * always
    assert not always or "role search and of role test" in left_out["metric"]


def without_gradient(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that can be reported and not be learned from."""
    return (outputs.argmax(dim=1) != targets).float().mean()


def test_a_loss_that_cannot_be_learned_from_is_said_before_the_search(tmp_path: Path) -> None:
    work = job(tmp_path / "run", task=tiny_task(loss=without_gradient), compared_with=("uniform",))
    learns = partial(RECOVER, distillation=0.0)
    with pytest.raises(ValueError, match=r"cannot be recovered: .*grad.*recover=none"):
        replace(work, recover=learns).execute()
    assert not (work.run.path / "history.jsonl").exists()
    assert replace(work, recover=no_recovery).execute()["failed"] == {}, "who does not recover needs no gradient"


class Spectral(nn.Module):
    """A network that is pruned well and that ONNX cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        return self.head(x.mean((2, 3)) + torch.linalg.matrix_exp(x[:, :1, :1, :1].squeeze(1))[:, 0])  # type: ignore[no-any-return]


def test_a_run_does_without_onnx_where_a_network_has_none(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    task = tiny_task()
    roles = {
        name: Role(torch.randn(len(role), 3, 8, 8, generator=g), torch.randint(0, 4, (len(role),), generator=g))
        for name, role in task.data.items()
    }
    own = Task(Spectral(), roles["test"].inputs[:1], type(task.data)(**roles), budget="macs:0.6")
    work = job(tmp_path / "run", task=own, compared_with=("uniform",))
    result = work.execute()
    assert result["failed"] == {}
    assert "onnx=False" in result["left_out"]["onnx"]
    assert not (work.run.path / "network.onnx").exists()
    loaded = autoprune.load(work.run.path, model=own.model)
    assert sum(p.numel() for p in loaded.parameters()) == result["networks"][result["chosen"]]["cost"]["params"]


def failing_late(network: nn.Module, task: Task, *, on_step: Any = None, **options: Any) -> nn.Module:
    """A recovery that gets through its rehearsal, and no farther."""
    on_step(1, 5, 0.5)
    raise FloatingPointError("the training loss is nan at step 2 of 5")


def test_a_recovery_that_fails_loses_neither_plan_nor_network_and_resumes(tmp_path: Path) -> None:
    work = job(tmp_path / "run", task=tiny_task(), compared_with=("uniform",))
    result = replace(work, recover=failing_late).execute()
    assert result["failed"] == {"recover": "FloatingPointError: the training loss is nan at step 2 of 5"}
    assert result["evaluations"]["spent"] == 15
    autoprune.load(work.run.path, model=work.problem.task.model)
    assert work.run.read_json("plan.json") == result["networks"][result["chosen"]]["plan"]
    again = replace(work, ledgers=Ledgers.of(work.run)).execute()
    assert again["failed"] == {}
    assert again["networks"]["searched"]["plan"] == result["networks"]["searched"]["plan"]
    assert again["networks"]["searched"]["after"] != again["networks"]["searched"]["before"]


def without_sensor(network: nn.Module) -> dict[str, float]:
    raise KeyError("no such sensor")


def test_a_measure_that_fails_is_named_and_the_others_are_there_and_a_recovery_that_helps_is_kept(
    tmp_path: Path,
) -> None:
    result = job(tmp_path / "run", task=tiny_task(measure=without_sensor), compared_with=("uniform",)).execute()
    assert list(result["failed"]) == ["measures"]
    assert "no such sensor" in result["failed"]["measures"]
    assert all(np.isfinite(record["before"]["accuracy"]) for record in result["networks"].values())
    assert not any("harmed" in record for record in result["networks"].values())
    assert result["networks"]["searched"]["after"] != result["networks"]["searched"]["before"]


def harming(network: nn.Module, task: Task, **options: Any) -> nn.Module:
    """A recovery that trains like any other, and ends at noise."""
    trained = RECOVER(network, task, **options)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    return trained


def breaking(network: nn.Module, task: Task, **options: Any) -> nn.Module:
    """A recovery whose network says nothing but NaN."""
    trained = RECOVER(network, task, **options)
    with torch.no_grad():
        next(trained.parameters()).fill_(torch.nan)
    return trained


@pytest.mark.parametrize("recover", [harming, breaking])
def test_what_a_recovery_made_worse_is_not_handed_out_and_said_after_resuming_too(tmp_path: Path, recover: Any) -> None:
    task = tiny_task(measure=without_sensor)  # so that there is something to resume
    work = replace(job(tmp_path / "run", task=task, compared_with=("uniform",)), recover=recover)
    work.run.write_json("run.json", {})
    result = work.execute()
    assert list(result["failed"]) == ["measures"]
    again = replace(work, ledgers=Ledgers.of(work.run)).execute()["networks"]
    for name in ("searched", "uniform"):
        assert again[name]["harmed"] == result["networks"][name]["harmed"]
        record = result["networks"][name]
        assert record["after"] == record["before"]
        assert record["recovered_score"] == record["score"]
        assert record["harmed"] == {} if recover is breaking else record["harmed"]["kl"] > record["held_out"]["kl"]
    loaded = autoprune.load(work.run.path, model=work.problem.task.model)
    assert all(torch.isfinite(parameter).all() for parameter in loaded.parameters())
    assert "recovery made it worse and was left out" in headline(read_contents(work.run))


LATE = {
    "baselines": "autoprune.pipeline.single_group_curves",
    "recover": "autoprune.final_networks.save_weights",
    "export": "autoprune.pipeline.save_network",
    "judge": "autoprune.final_networks.FinalNetworks._judged",
    "latency": "autoprune.final_networks.measure_latency",
    "tracking": "autoprune.pipeline.track_result",
}


def test_stages_that_fail_late_are_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    work = job(tmp_path / "run", task=tiny_task())
    work.run.write_json("run.json", {})
    with monkeypatch.context() as broken:
        for target in LATE.values():
            broken.setattr(target, full)
        result = work.execute()
    assert list(result["failed"]) == list(LATE)
    assert all("No space left" in reason for reason in result["failed"].values())
    assert work.run.read_json("result.json")["failed"] == result["failed"]
    assert work.run.read_json("plan.json") == result["networks"][result["chosen"]]["plan"]
    assert headline(read_contents(work.run))
    assert summary_of(result)["result/evaluations"] == 15
    again = replace(work, ledgers=Ledgers.of(work.run)).execute()
    assert again["failed"] == {}
    assert again["networks"]["searched"]["plan"] == result["networks"]["searched"]["plan"]


class Nothing(nn.Linear):
    def eval(self) -> None:  # type: ignore[override]
        super().eval()


def test_an_eval_that_returns_nothing_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"Nothing.eval\(\).*return self"):
        replace(tiny_task(), model=Nothing(8, 4))


def test_a_large_network_is_tried_on_fewer_samples() -> None:
    def samples(parameters: int) -> int:
        return _samples(nn.Linear(parameters // 1000, 1000, bias=False, device="meta"))

    assert [samples(size) for size in (10**4, 10**7, 2 * 10**7, 10**8, 10**10)] == [64, 64, 32, 8, 8]


def test_stages_without_progress_of_their_own_are_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autoprune.rehearsal.announced", partial(announced, after_s=0.0))
    stages = RunStages()
    assert stages.attempt("recover", lambda: 3, otherwise=None) == 3
    assert capsys.readouterr().out == ""
    assert stages.attempt("latency", lambda: 1 / 0, otherwise=4) == 4
    assert capsys.readouterr().out == "timing every network …\n"
    assert stages.failed == {"latency": "ZeroDivisionError: division by zero"}


def test_a_network_that_recovery_leaves_as_it_is_is_held_and_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecoveredNetworks, "_is_worse", lambda *_, **__: False)
    problem = prepared(tiny_task(), proxy_samples=40)
    plans = {"searched": problem.structure.plan(problem.projector.floor)}
    pruned, unseen = {"searched": problem.pruned(plans["searched"])}, UnseenJudge(problem)
    for recover, same in ((no_recovery, True), (RECOVER, False)):
        run = RunFolder.create(tmp_path / str(same))
        stage = RecoveredNetworks(problem, recover, no_quantization, 0, run, Ledgers.of(run), unseen)
        for _ in range(2):  # the second time from the disk, as in a resumed run
            recovered = stage.networks(plans, pruned, on_step=lambda _: lambda *_: None)
            assert (recovered["searched"] is pruned["searched"]) == same
