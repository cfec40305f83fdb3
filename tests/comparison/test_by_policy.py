"""Agents by their policies' own plans, where the answers are known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoprune.cli.compare import CompareRequest
from autoprune.comparison.compare_runs import compare
from autoprune.comparison.reading import summary_of
from autoprune.comparison.run_summary import PolicyPlan, RunSummary
from autoprune.report.comparison_page import render_comparison
from autoprune.report.comparison_terminal import print_comparison
from autoprune.runs import RunFolder
from tests.comparison.run_summaries import pruned, runs_of
from tests.report.run_folders import write_run


def learned(agent: str, *, own: list[float], met: float, searched: float) -> list[RunSummary]:
    """A run per own plan's score; on the samples that searches saw uniform is −2, on the held-out ones −1."""
    runs = runs_of({agent: [searched] * len(own)})
    plan = pruned(0, density=0.25).plan
    return [replace(run, policy=PolicyPlan(plan, s, uniform=-2.0, best=met)) for run, s in zip(runs, own, strict=True)]


def mixed() -> list[RunSummary]:
    """By their searches td3 is best; by their policies ppo is, and td3 is worse than uniform but once."""
    ppo = learned("ppo", own=[-1.0, -1.0, -1.0, -1.0], met=-0.5, searched=-0.4)
    td3 = learned("td3", own=[-2.6, -2.6, -2.6, -1.9], met=0.0, searched=-0.2)
    return [*ppo, *td3, *runs_of({"random": [-0.3] * 4})]


def labels(ranking: Any) -> list[str]:
    return [agent["label"] for agent in ranking["agents"]]


def test_searches_and_policies_are_ranked_apart() -> None:
    both, search, policy = (compare(mixed(), by=by) for by in ("both", "search", "policy"))
    assert labels(both["post_training"])[:3] == ["td3", "random", "ppo"] == labels(search["post_training"])[:3]
    assert labels(both["policies"]) == ["ppo", "td3"]
    assert search["policies"] is policy["policies"] is None
    assert labels(policy["post_training"]) == ["ppo", "uniform", "td3"]


def test_the_scale_is_that_of_the_samples_that_searches_saw() -> None:
    """0 is −2, 1 is 0, the best plan that any of the policies' searches met: ppo's −1 is a half."""
    means = {a["label"]: a["iqm"]["value"] for a in compare(mixed())["policies"]["agents"]}
    assert means == pytest.approx({"ppo": 0.5, "td3": -0.3})
    result = compare(mixed(), by="policy")
    (cell,) = result["cells"]
    assert (cell["zero"], cell["one"]) == (-2, 0)
    pair = next(p for p in result["post_training"]["pairs"] if (p["a"], p["b"]) == ("ppo", "td3"))
    assert (pair["verdict"], pair["difference"]["value"]) == ("better", pytest.approx(0.8))
    assert result["plans"][0]["agents"]["ppo"] == pytest.approx([0.25] * 9)  # the policy's plan, not the search's
    assert result["recovered"] is None
    known = compare([replace(run, optimum=2.0) for run in mixed()], by="policy")
    assert (known["cells"][0]["one"], known["cells"][0]["best"]) == (2, "the optimum")


def test_who_learned_nothing_is_left_out_and_said() -> None:
    assert (
        "random learned no policy: left out here, where policies are compared."
        in (compare(mixed(), by="policy")["caveats"])
    )
    partly = compare([*mixed(), *runs_of({"ppo": [-0.4]}, budget="macs:0.2")], by="policy")["caveats"]
    assert "Runs of ppo in which no policy's own plan was evaluated are left out." in partly
    with pytest.raises(ValueError, match="by=search"):
        compare(runs_of({"random": [-0.3] * 4}), by="policy")
    assert compare(runs_of({"random": [-0.3] * 4}))["policies"] is None


@pytest.mark.parametrize(("by", "expected"), [("both", True), ("policy", True), ("search", False)])
def test_a_policy_that_is_worse_than_uniform_is_said(by: Any, expected: bool) -> None:
    caveats = compare(mixed(), by=by)["caveats"]
    sentence = "Of td3, the policy's own plan is worse than the uniform one in 3 of 4 runs."
    assert (sentence in caveats) is expected
    assert not any(text.startswith("Of ppo") for text in caveats)


def test_table_and_page_show_both() -> None:
    both, console = compare(mixed()), Console(width=150, record=True)
    print_comparison(both, console)
    lines = [line for line in console.export_text().splitlines() if line.strip() and "(" not in line]
    rows = {line.split()[0]: line for line in lines[:8]}
    assert "0.50" in rows["ppo"]
    assert "−0.30" in rows["td3"]
    assert "“Policy's own plan”" in render_comparison(both)
    assert "“Policy's own plan”" not in render_comparison(compare(mixed(), by="search"))
    assert "The policies&#39; own plans" in (page := render_comparison(compare(mixed(), by="policy"))) or (
        "The policies' own plans" in page
    )


def test_what_a_run_says_of_its_policy_is_read_and_kept(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=40)
    result, run = folder.read_json("result.json"), folder.read_json("run.json")
    plan = result["networks"]["searched"]["plan"]
    result["policy"] = {"plan": plan, "score": -0.7, "gap": 0.2, "uniform": -0.6, "evaluation": 40}
    summary = summary_of(result, run, {}, where="here")
    assert summary.policy is not None
    assert (summary.policy.score, summary.policy.uniform) == (-0.7, -0.6)
    assert summary.policy.best == pytest.approx(-0.5)
    assert RunSummary.from_json(json.loads(json.dumps(summary.as_json()))) == summary
    assert summary_of({**result, "policy": None}, run, {}, where="here").policy is None
    result["policy"]["gap"] = None
    assert summary_of(result, run, {}, where="here").policy == replace(summary.policy, best=None)
    with pytest.raises(ValueError, match="needs the uniform plan"):
        replace(summary, baselines={})


def test_the_command_takes_it(tmp_path: Path) -> None:
    assert CompareRequest.parse([str(tmp_path)]).by == "both"
    assert CompareRequest.parse([str(tmp_path), "by=policy"]).by == "policy"
    with pytest.raises(ValueError, match="by"):
        CompareRequest.parse([str(tmp_path), "by=luck"])


def test_the_page_is_made_of_what_is_written_down(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("comparison.json", compare(mixed()))
    assert "0.50" in render_comparison(folder.read_json("comparison.json"))
