import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from omegaconf import OmegaConf

from autoprune.tracking import NoTracker, TrackedRun, WandbTracker, no_tracking, wandb_tracking
from tests.commands import run_python
from tests.offline_runs import of, records, records_of
from tests.wandb_server import REFUSAL, wandb_server

ROOT = Path(__file__).parent.parent
CONFIG = {"seed": 3, "agent": {"name": "ppo", "net_arch": [64, 64]}}
KEY = "0123456789" * 4  # the form of a key; no server ever sees it


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))


def start(
    folder: Path, *, name: str = "run", mode: Any = "offline", tags: tuple[str, ...] = (), run_id: str | None = None
) -> WandbTracker:
    run = TrackedRun(folder, name, group="digits", job_type="search", config=CONFIG, run_id=run_id)
    return wandb_tracking(run, mode=mode, project="autoprune", entity=None, tags=tags)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One whole offline run, read back."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    tracker = start(folder, name="whole", tags=("a", "b"))
    (folder / "policy").mkdir()
    (folder / "policy" / "policy.json").write_text("{}")
    (folder / "policy" / "policy.safetensors").write_bytes(b"weights")
    (folder / "plan.json").write_text("{}")
    (folder / "report.html").write_text("<h1>report</h1>")
    for i, (score, best) in enumerate([(0.2, 0.2), (0.9, 0.9), (0.5, 0.9)], start=1):
        tracker.log({"search/score": score, "search/best": best, "cost/macs": 1e6 * i}, axis="evaluation", step=i)
    tracker.log({"agent/train/actor_loss": -1.5}, axis="agent/step", step=640)
    tracker.log({"recover/loss_searched": 0.4}, axis="recover/step", step=10)
    tracker.log({"search/score": float("nan"), "search/best": None, "search/kl": 0.1}, axis="evaluation", step=4)
    tracker.summary({"result/accuracy_after": 0.91, "result/chosen": "searched"})
    tracker.table("plan", ["group", "units", "kept"], [["conv1", 16, 9], ["fc", 64, 64]])
    tracker.bars("plan_sparsity", ["conv1", "fc"], [0.4375, 0.0], title="Sparsity per group")
    tracker.page("report", folder / "report.html")
    tracker.artifact("policy", folder / "policy", kind="policy")
    tracker.artifact("plan of a=1, b=2", folder / "plan.json", kind="plan")
    tracker.close()
    return records(folder)


def test_the_run_has_its_name_group_job_type_tags_and_config(read: list[dict[str, Any]]) -> None:
    run = of(read, "run")[0]
    assert run["display_name"] == "whole"
    assert run["project"] == "autoprune"
    assert run["run_group"] == "digits"
    assert run["job_type"] == "search"
    assert run["tags"] == ["a", "b"]
    assert {key: value for key, value in run["config"]["update"].items() if key != "_wandb"} == CONFIG
    assert of(read, "exit")[0]["exit_code"] == 0


def test_every_metric_is_plotted_against_its_own_axis(read: list[dict[str, Any]]) -> None:
    defined = {metric.get("glob_name") or metric["name"]: metric for metric in of(read, "metric")}
    axes = {name: metric.get("step_metric") for name, metric in defined.items()}
    assert axes["search/*"] == axes["search/best"] == axes["cost/*"] == "evaluation"
    assert axes["agent/*"] == "agent/step"
    assert axes["recover/*"] == "recover/step"
    assert defined["search/best"]["summary"] == {"max": True}


def test_the_history_has_every_number_with_its_step(read: list[dict[str, Any]]) -> None:
    rows = [record["item"] for record in of(read, "history")]
    rows = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    assert rows[:3] == [
        {"evaluation": 1, "search/score": 0.2, "search/best": 0.2, "cost/macs": 1e6},
        {"evaluation": 2, "search/score": 0.9, "search/best": 0.9, "cost/macs": 2e6},
        {"evaluation": 3, "search/score": 0.5, "search/best": 0.9, "cost/macs": 3e6},
    ]
    assert rows[3] == {"agent/step": 640, "agent/train/actor_loss": -1.5}
    assert rows[4] == {"recover/step": 10, "recover/loss_searched": 0.4}
    assert rows[5] == {"evaluation": 4, "search/kl": 0.1}  # NaN and None are left out


def test_the_summary_has_the_best_score_and_the_result(read: list[dict[str, Any]]) -> None:
    summary: dict[str, Any] = {}
    for record in of(read, "summary"):
        summary |= record["update"]
    assert summary["search/best"] == {"max": 0.9}
    assert summary["result/accuracy_after"] == 0.91
    assert summary["result/chosen"] == "searched"
    assert summary["plan._type"] == "table-file"
    assert (summary["plan.nrows"], summary["plan.ncols"]) == (2, 3)
    assert summary["report._type"] == "html-file"


def test_the_bars_are_a_chart(read: list[dict[str, Any]]) -> None:
    charts = {key: value for record in of(read, "config") for key, value in record["update"].items()}
    assert charts["_wandb.visualize.plan_sparsity"]["panel_config"]["panelDefId"] == "wandb/bar/v0"


def test_artifacts_point_at_the_run_folders_own_files(read: list[dict[str, Any]]) -> None:
    artifacts = {artifact["type"]: artifact for artifact in of(read, "artifact")}
    assert {"policy", "plan"} <= set(artifacts)
    files = artifacts["policy"]["manifest"]["contents"]
    assert sorted(file["path"] for file in files) == ["policy.json", "policy.safetensors"]
    assert all(Path(file["local_path"]).is_absolute() and Path(file["local_path"]).is_file() for file in files)
    assert artifacts["plan"]["name"].startswith("plan-of-a-1--b-2-")


def test_the_home_folder_stays_clean(tmp_path: Path) -> None:
    tracker = start(tmp_path / "run")
    tracker.table("plan", ["group"], [["conv1"]])
    tracker.close()
    assert not (tmp_path / "home" / ".local").exists()
    assert "WANDB_DATA_DIR" not in os.environ


def test_runs_at_once_and_one_after_another_in_one_process_stay_apart(tmp_path: Path) -> None:
    first, second = start(tmp_path / "1", name="first"), start(tmp_path / "2", name="second")
    first.log({"search/score": 1.0}, axis="evaluation", step=1)
    second.log({"search/score": 2.0}, axis="evaluation", step=1)
    first.close()
    second.log({"search/score": 2.5}, axis="evaluation", step=2)
    second.close(failed=True)
    third = start(tmp_path / "3", name="third")
    third.log({"search/score": 3.0}, axis="evaluation", step=1)
    third.close()
    for number, name, scores, code in [(1, "first", [1.0], 0), (2, "second", [2.0, 2.5], 1), (3, "third", [3.0], 0)]:
        run = records(tmp_path / str(number))
        assert of(run, "run")[0]["display_name"] == name
        assert [record["item"]["search/score"] for record in of(run, "history")] == scores
        assert of(run, "exit")[0].get("exit_code", 0) == code


def test_the_parts_of_a_resumed_run_are_one_run_that_counts_on(tmp_path: Path) -> None:
    first = start(tmp_path)
    for step in (1, 2):
        first.log({"search/score": float(step)}, axis="evaluation", step=step)
    lines = [json.dumps({"evaluation": step}) + "\n" for step in (1, 2, 3)]  # the third was not logged any more
    (tmp_path / "history.jsonl").write_text("".join(lines))
    first.close()
    begun = set((tmp_path / "wandb").glob("offline-run-*"))
    time.sleep(1.1)  # the folders' names have seconds
    second = start(tmp_path, run_id=first.run_id)
    for step in (4, 5):
        second.log({"search/score": float(step)}, axis="evaluation", step=step)
    second.close()
    (earlier,), (later,) = begun, set((tmp_path / "wandb").glob("offline-run-*")) - begun
    parts = [records_of(earlier), records_of(later)]
    assert {of(part, "run")[0]["run_id"] for part in parts} == {first.run_id}
    rows = [record["item"] for part in parts for record in of(part, "history")]
    assert [row["evaluation"] for row in rows] == [1, 2, 4, 5]
    assert [row["_step"] for row in rows] == [0, 1, 3, 4]


def test_what_wandb_does_not_take_is_a_warning_given_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = start(tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="autoprune.tracking"):
        tracker.page("report", tmp_path / "missing.html")
        tracker.page("report", tmp_path / "missing.html")
        tracker.artifact("policy", tmp_path / "missing", kind="policy")
        tracker.log({"search/score": 1.0}, axis="evaluation", step=1)
        tracker.close()
        tracker.log({"search/score": 1.0}, axis="evaluation", step=2)  # after the end: W&B refuses
        tracker.close()
    messages = [record.getMessage() for record in caplog.records if record.name == "autoprune.tracking"]
    assert len(messages) == len(set(messages)) == 3
    assert "the page report" in messages[0]
    assert str(tmp_path / "run") in messages[0]
    assert [record["item"]["search/score"] for record in of(records(tmp_path / "run"), "history")] == [1.0]


class OnlineRun:
    """A run of which every other artifact is refused; it notes what it was asked for."""

    id, offline = "abc", False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log_artifact(self, artifact: wandb.Artifact) -> Any:
        refused = len(self.asked) % 2 == 1

        def wait(timeout: float) -> None:
            assert timeout > 0
            self.asked.append(f"wait {artifact.name}")
            if refused:
                raise ValueError("storage quota exceeded")

        self.asked.append(f"log {artifact.name}")
        return SimpleNamespace(wait=wait)

    def finish(self, *, exit_code: int) -> None:
        self.asked.append(f"finish {exit_code}")


def test_artifacts_are_awaited_and_a_refusal_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plan.json").write_text("{}")
    run = OnlineRun()
    tracker = WandbTracker(run, folder=tmp_path)  # type: ignore[arg-type]
    for name in ("plan", "policy"):
        tracker.artifact(name, tmp_path / "plan.json", kind=name)
    assert not caplog.records, "they are sent while the run goes on"
    tracker.close()
    assert sorted(run.asked[:-1]) == ["log plan-abc", "log policy-abc", "wait plan-abc", "wait policy-abc"]
    assert run.asked[-1] == "finish 0"
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "did not take the policy artifact policy" in warning
    assert "storage quota exceeded" in warning


ONLINE = """
import logging, sys
from pathlib import Path
from autoprune.tracking import TrackedRun, wandb_tracking
logging.basicConfig(level=logging.WARNING)
folder = Path(sys.argv[1])
run = TrackedRun(folder, "n", group="g", job_type="search", config={})
tracker = wandb_tracking(run, mode="online", project="p", entity=None, tags=[])
(folder / "plan.json").write_text("{}")
tracker.artifact("plan", folder / "plan.json", kind="plan")
tracker.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("takes", [True, False])
def test_a_server_takes_artifacts_or_its_refusal_is_seen(takes: bool, tmp_path: Path) -> None:
    with wandb_server(takes_artifacts=takes) as server:
        environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        done = run_python(ONLINE, str(tmp_path / "run"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "CreateArtifact" in server.operations
    warned = f"did not take the plan artifact plan (ValueError: ArtifactSaver.createArtifact: input: {REFUSAL}"
    assert (warned in done.stderr) is not takes
    assert ("WARNING:autoprune" in done.stderr) is not takes


def test_an_unknown_axis_or_mode_is_an_error(tmp_path: Path) -> None:
    tracker = start(tmp_path / "run")
    with pytest.raises(ValueError, match="'time'"):
        tracker.log({"search/score": 1.0}, axis="time", step=1)  # type: ignore[arg-type]
    tracker.close()
    with pytest.raises(ValueError, match="'sometimes'"):
        start(tmp_path / "run", mode="sometimes")


def test_online_without_a_login_ends_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"wandb login.*tracking\.mode=offline"):
        start(tmp_path / "run", mode="online")
    assert not (tmp_path / "run").exists()


def test_auto_is_offline_without_a_login(tmp_path: Path) -> None:
    start(tmp_path / "run", mode="auto").close()
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1


def resolved(mode: str, environment: dict[str, str]) -> str:
    """What `mode` comes to in a fresh process: a login stays with the process that has found one."""
    program = (
        "import sys, wandb; from autoprune import tracking\n"
        "wandb.setup(settings=wandb.Settings(silent=True))\n"
        "try: print(tracking._resolve(sys.argv[1]))\n"
        "except RuntimeError as error: print(error)"
    )
    output = run_python(program, mode, env={**os.environ, **environment})
    assert output.returncode == 0, output.stderr
    assert output.stderr == ""
    return output.stdout.strip()


def test_auto_is_online_with_a_key_in_the_environment() -> None:
    assert resolved("auto", {"WANDB_API_KEY": KEY}) == "online"


def test_auto_is_online_with_a_key_in_netrc(tmp_path: Path) -> None:
    host = wandb.Settings().base_url.removeprefix("https://")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    assert resolved("auto", {}) == "online"


def test_wandb_mode_decides_for_auto() -> None:
    assert resolved("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}) == "offline"
    assert resolved("offline", {"WANDB_API_KEY": KEY}) == "offline"


def test_a_key_that_cannot_be_one_is_named() -> None:
    assert "tracking.mode=offline" in resolved("auto", {"WANDB_API_KEY": "short"})


def test_no_tracker_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    tracker = no_tracking(TrackedRun(tmp_path / "run", "run", group="g", job_type="search", config={}))
    assert isinstance(tracker, NoTracker)
    tracker.log({"search/score": 1.0}, axis="evaluation", step=1)
    tracker.summary({"result/chosen": "searched"})
    tracker.table("plan", ["a"], [[1]])
    tracker.bars("plan", ["a"], [1.0], title="t")
    tracker.page("report", tmp_path / "missing.html")
    tracker.artifact("policy", tmp_path / "missing", kind="policy")
    tracker.close()
    assert not (tmp_path / "run").exists()


def configured(name: str) -> dict[str, Any]:
    settings = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "tracking" / f"{name}.yaml"))
    assert isinstance(settings, dict)
    assert settings.pop("_partial_") is True
    return {str(key): value for key, value in settings.items()}


def test_the_configuration_starts_a_tracker(tmp_path: Path) -> None:
    wandb_settings, none_settings = configured("wandb"), configured("none")
    assert wandb_settings.pop("_target_") == "autoprune.tracking.wandb_tracking"
    assert none_settings == {"_target_": "autoprune.tracking.no_tracking"}
    run = TrackedRun(tmp_path / "run", "n", group="g", job_type="search", config={})
    wandb_tracking(run, **wandb_settings).close()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_an_agent_of_wandb_runs_the_documented_sweep(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
    (sweep,) = re.findall(r"^```yaml\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    settings = OmegaConf.to_container(OmegaConf.create(sweep.replace("${args_no_hyphens}", "ARGS")), resolve=False)
    assert isinstance(settings, dict)
    # a smaller task, and fewer evaluations, than somebody would wait for
    short = sweep.replace("task=fashion_plain20", "experiment=smoke") + "  - evaluations=24\n"
    proposal = {name: values["values"][0] for name, values in settings["parameters"].items()}
    with wandb_server(takes_artifacts=True, sweep=short, proposals=[proposal]) as server:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-m", "wandb", "agent", "--count", "1", "me/p/abc"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
        )
    assert "did not take" not in done.stdout + done.stderr
    (run,) = server.runs.values()
    config = {key: each["value"] for key, each in json.loads(run["config"]).items()}
    assert (run["sweep"], run["tags"], config["agent"], config["mode"]) == ("abc", ["ppo"], "ppo", "one_shot")
    assert config["settings"]["agent"]["env"]["max_log_correction"] == proposal["agent.env.max_log_correction"]
    metrics = {each.get("1"): each for each in config["_wandb"]["m"]}
    assert metrics["policy/score"]["7"] == metrics["search/best"]["7"], "the best value is in the summary"
    ((name, rows),) = server.history.items()
    own = [row["policy/score"] for row in rows if "policy/score" in row]
    assert all("evaluation" in row for row in rows if "policy/score" in row)
    assert server.summary[name]["policy/score"] == {"max": max(own)}
    assert server.summary[name]["result/policy_score"] == max(own)
    assert server.summary[name]["result/policy_gap"] >= 0
    assert [row["policy/best"] for row in rows if "policy/best" in row] == [max(own)], "once: a bar for each run"
    assert server.operations.count("CreateArtifact") >= 4, "result, plan, network and policy"


def test_a_parents_service_is_not_used(tmp_path: Path) -> None:
    """It keeps the ids of commands that were killed, so that none of their runs could go on."""
    program = """
import sys
from pathlib import Path
from autoprune.tracking import TrackedRun, wandb_tracking
run = TrackedRun(Path(sys.argv[1]), "name", group="g", job_type="search", config={})
tracker = wandb_tracking(run, mode="offline", project="p", entity=None, tags=[])
tracker.close()
"""
    handed_on = {**os.environ, "WANDB_SERVICE": "3-1-unix-/nowhere/socket"}
    done = run_python(program, str(tmp_path / "run"), env=handed_on)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb"))
