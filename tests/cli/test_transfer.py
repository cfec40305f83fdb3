"""`autoprune train`, `apply` and `search policy=…` as a person uses them: real processes, right and wrong arguments."""

import json
from pathlib import Path

import pytest

from tests.commands import MY_TASK, run

QUIET = ["threads=1", "tracking=none"]
SMALL = [
    *QUIET, "tasks=[digits]", "variants.numbers=0", "settings=2", "evaluations=90", "held_out.tasks=[]",
    "held_out.variants.images=[digits]", "held_out.variants.families=[dense]", "held_out.variants.numbers=1",
    "held_out.budgets=[macs:0.5]", "held_out.evaluations=10", "hydra.run.dir=trained",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apply", "task=digits", "policy=nowhere"], "there is no folder 'nowhere'; a policy is given as a folder"),
        (["apply", "task=digits", "policy=shipped:horse"], "brings no policy 'horse' along"),
        (["apply", "task=digits", "policy=null"], "this agent begins with a policy: policy=FOLDER"),
        (["search", "task=digits", "policy=nowhere"], "there is no folder 'nowhere'"),
        (["train", "tasks=[horse]", "variants.numbers=0"], "there is no task 'horse'; conf/task has ['digits'"),
        (["train", "budget=macs:0.8..0.2"], "budget 'macs:0.8..0.2' must go up"),
        (["train", "budget=half"], "must be written cost:low..high"),
        (["train", "tasks=[digits]", "variants.numbers=0", "evaluations=20"], "evaluations are needed before anything"),
        (["train", "tasks=[]", "variants.numbers=0"], "there is nothing to learn from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_get_one_clear_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments, *QUIET, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_policy_is_made_and_used_on_a_task_of_ones_own(tmp_path: Path) -> None:
    done = run("train", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "digits_dense_0" in done.stdout
    trained = json.loads((tmp_path / "trained" / "result.json").read_text())
    assert trained["networks"] == ["digits"]
    assert trained["evaluations"] <= 90
    record = json.loads((tmp_path / "trained" / "policy" / "policy.json").read_text())
    assert record["training"]["held_out"][0]["network"] == "digits_dense_0"
    (tmp_path / "my_module.py").write_text(MY_TASK)
    mine = [*QUIET, "task._target_=my_module.my_task", "policy=trained/policy", "budget=macs:0.5"]
    done = run("apply", *mine, "hydra.run.dir=applied", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    applied = json.loads((tmp_path / "applied" / "result.json").read_text())
    assert applied["agent"] == "apply"
    assert applied["budget"]["relative"] == 0.5
    done = run("search", *mine, "evaluations=60", "recover.steps=5", "hydra.run.dir=searched", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "searched" / "result.json").read_text())["agent"] == "transferable"
    goes_on = json.loads((tmp_path / "searched" / "policy" / "policy.json").read_text())["training"]["tasks"]
    assert goes_on in (["digits", "custom"], ["custom"])
    outside = run("apply", *mine[:-1], "budget=macs:0.9", "hydra.run.dir=outside", cwd=tmp_path)
    assert "was trained under macs:0.15..0.8, and 'macs:0.9' is 0.900 of dense" in outside.stderr
