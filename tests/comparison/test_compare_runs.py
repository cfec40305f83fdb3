"""What is said of runs whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from autoprune.cli.compare import CompareRequest
from autoprune.comparison.compare_runs import compare
from autoprune.comparison.reading import Missing, summary_of
from autoprune.comparison.run_summary import PolicyPlan, RunSummary
from autoprune.comparison.score_scale import scale_of
from autoprune.report.comparison_page import render_comparison
from autoprune.report.comparison_terminal import print_comparison
from autoprune.runs import RunFolder
from tests.comparison.run_summaries import ladder, pruned, runs_of, summary
from tests.report.run_folders import write_run

LOW, HIGH = [-0.42, -0.40, -0.41, -0.43, -0.39], [-0.22, -0.20, -0.21, -0.23, -0.19]
ONE = ("digits", "macs:0.35")
TWO = (ONE, ("digits", "macs:0.2"))


def compared(tmp_path: Path, *arguments: Any, **settings: Any) -> Any:
    """As the page reads it."""
    folder = RunFolder(tmp_path)
    folder.write_json("comparison.json", compare(*arguments, **settings))
    return folder.read_json("comparison.json")


def pair(result: Any, a: str, b: str, regime: str = "post_training") -> Any:
    return next(p for p in result[regime]["pairs"] if {p["a"], p["b"]} == {a, b})


def test_who_is_always_better_is_better(tmp_path: Path) -> None:
    result = compared(tmp_path, runs_of({"random": LOW, "ppo": HIGH}))
    labels = [agent["label"] for agent in result["post_training"]["agents"]]
    assert labels == ["ppo", "random", "sensitivity", "uniform"]
    found = pair(result, "ppo", "random")
    assert (found["a"], found["verdict"]) == ("ppo", "better")
    assert found["improvement"] == {"value": 1, "low": 1, "high": 1, "error": 0}
    assert found["difference"]["value"] == pytest.approx(0.2 / 0.81)  # 0 is −1, 1 is −0.19
    assert found["difference"]["low"] > 0


def test_equal_agents_are_no_different(tmp_path: Path) -> None:
    result = compared(tmp_path, runs_of({"random": LOW, "ppo": LOW[::-1]}))
    found = pair(result, "ppo", "random")
    assert found["verdict"] == "no difference"
    assert found["improvement"]["value"] == 0.5


def test_three_seeds_do_not_tell_two_agents_apart(tmp_path: Path) -> None:
    result = compared(tmp_path, runs_of({"random": LOW[:3], "ppo": HIGH[:3]}))
    assert pair(result, "ppo", "random")["verdict"] == "too few seeds"
    both = [t for task, budget in TWO for t in runs_of({"random": LOW[:3], "ppo": HIGH[:3]}, task=task, budget=budget)]
    found = pair(compared(tmp_path, both), "ppo", "random")
    assert found["verdict"] == "better"
    assert [cell["verdict"] for cell in found["cells"]] == ["too few seeds"] * 2


def test_agents_that_no_seed_changes_are_constants(tmp_path: Path) -> None:
    """One run of each is enough, and what differs between them differs whatever the number of seeds."""
    result = compared(tmp_path, runs_of({"lamp": [-0.3], "erk": [-0.6], "ppo": HIGH[:3]}))
    agents = {agent["label"]: agent for agent in result["post_training"]["agents"]}
    assert [name for name, agent in agents.items() if agent["deterministic"]] == [
        "lamp",
        "sensitivity",
        "erk",
        "uniform",
    ]
    assert all(agent["ranked"] for agent in agents.values())
    assert pair(result, "lamp", "uniform")["verdict"] == "better"
    assert pair(result, "ppo", "lamp")["verdict"] == "better"  # by Student's t
    assert result["caveats"] == []
    alone = compared(tmp_path, runs_of({"lamp": [-0.3], "erk": [-0.6]}))
    assert pair(alone, "lamp", "erk")["verdict"] == "better"
    near = compared(tmp_path, runs_of({"lamp": [-0.2], "ppo": [-0.22, -0.18, -0.23]}))
    assert pair(near, "ppo", "lamp")["verdict"] == "too few seeds"


def test_recovery_makes_seeds_of_a_plan_that_none_changes(tmp_path: Path) -> None:
    runs = [summary("lamp", -0.3, seed=seed, recovered=0.9 + 0.01 * seed) for seed in range(2)]
    result = compared(tmp_path, [*runs, *runs_of({"ppo": HIGH}, recovered=0.92)])
    ranked = {a["label"]: a for a in result["recovered"]["agents"]}
    assert [name for name, agent in ranked.items() if agent["deterministic"]] == ["uniform"]
    assert ranked["lamp"]["iqm"]["low"] < ranked["lamp"]["iqm"]["high"]


def test_one_seed_is_not_ranked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(ppo, random\).*4 can.*seed=range\(0,4\)"):
        compare(runs_of({"random": LOW[:1], "ppo": HIGH[:1]}))
    result = compared(tmp_path, runs_of({"random": LOW, "ppo": HIGH[:1]}))
    ranked = {agent["label"]: agent["ranked"] for agent in result["post_training"]["agents"]}
    assert ranked == {"random": True, "sensitivity": True, "uniform": True, "ppo": False}
    assert any(said.startswith("ppo is not ranked: it has one seed") for said in result["caveats"])
    assert not any("ppo" in (p["a"], p["b"]) for p in result["post_training"]["pairs"])


def test_zero_is_uniform_and_one_the_best_plan_known(tmp_path: Path) -> None:
    result = compared(tmp_path, runs_of({"random": LOW, "ppo": HIGH}))
    (cell,) = result["cells"]
    assert (cell["zero"], cell["one"], cell["best"]) == (-1, max(HIGH), "ppo")
    uniform = result["post_training"]["agents"][-1]
    assert uniform["iqm"] == {"value": 0, "low": 0, "high": 0, "error": 0}
    known = compared(tmp_path, runs_of({"random": LOW, "ppo": HIGH}, optimum=-0.1))
    assert (known["cells"][0]["one"], known["cells"][0]["best"]) == (-0.1, "the optimum")


def test_a_baseline_may_be_the_best_plan_known() -> None:
    ours = {"ppo": runs_of({"ppo": [-0.9, -0.8]})}
    assert (scale_of(ONE, ours).one, scale_of(ONE, ours).best) == (-0.5, "sensitivity")
    with pytest.raises(ValueError, match="add runs of agent=uniform"):
        scale_of(ONE, {"ppo": [replace(t, baselines={}) for t in ours["ppo"]]})
    uniform = [replace(t, agent="uniform", baselines={}) for t in runs_of({"uniform": [-1.0, -1.0]})]
    assert scale_of(ONE, {"uniform": uniform}).flat


def test_where_nothing_beats_uniform_there_is_no_score(tmp_path: Path) -> None:
    flat = [
        replace(t, baselines={"uniform": t.baselines["uniform"]})
        for t in runs_of({"ppo": [-1.0, -1.1, -1.2], "random": [-1.3, -1.1, -1.2]})
    ]
    result = compared(tmp_path, flat)
    assert result["post_training"]["agents"] == []
    assert "nothing is better than the uniform plan" in result["caveats"][0]


def test_the_order_of_trials_and_another_agent_change_nothing(tmp_path: Path) -> None:
    runs = runs_of({"random": LOW, "ppo": HIGH})
    first, turned = compared(tmp_path, runs), compared(tmp_path, runs[::-1])
    assert first["post_training"]["pairs"] == turned["post_training"]["pairs"]
    more = compared(tmp_path, [*runs, *runs_of({"sac": LOW})])
    assert pair(more, "ppo", "random") == pair(first, "ppo", "random")


def test_recovered_networks_are_compared_with_their_own_runs_uniform(tmp_path: Path) -> None:
    runs = []
    for seed, luck in enumerate([0.0, 0.02, -0.02, 0.01, -0.01]):  # a seed's luck is the same for both plans
        for agent, gain in (("ppo", 0.005), ("random", 0.0)):
            done = summary(agent, -0.4, seed=seed, recovered=0.9 + luck + gain)
            uniform = replace(done.baselines["uniform"], recovered={"accuracy": 0.9 + luck})
            runs.append(replace(done, baselines={"uniform": uniform}))
    result = compared(tmp_path, runs)
    found = pair(result, "ppo", "random", "recovered")
    assert found["verdict"] == "better"
    assert found["difference"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5, "error": 0}, abs=1e-9)
    assert pair(result, "ppo", "random")["verdict"] == "no difference"  # the regimes are two questions


def test_without_recovery_there_is_no_such_part(tmp_path: Path) -> None:
    assert compared(tmp_path, runs_of({"random": LOW, "ppo": HIGH}))["recovered"] is None


def test_of_an_agent_some_of_whose_runs_were_recovered_those_are_compared(tmp_path: Path) -> None:
    runs = []
    for seed in range(6):
        for agent, gain, many in (("random", 0.01, 6), ("ppo", 0.02, 4)):
            done = summary(agent, -0.4 + seed / 100, seed=seed, recovered=0.9 + gain if seed < many else None)
            runs.append(
                replace(done, baselines={"uniform": replace(done.baselines["uniform"], recovered={"accuracy": 0.9})})
            )
    result = compared(tmp_path, runs)
    seeds = {found["label"]: found["seeds"] for found in result["recovered"]["accuracy"]}
    assert (seeds["random"], seeds["ppo"]) == (6, 4)
    assert pair(result, "ppo", "random", "recovered")["difference"]["value"] == pytest.approx(1)
    assert any("Of ppo, 4 of 6 runs of a task and budget were recovered" in said for said in result["caveats"])
    assert not any("Of random" in said for said in result["caveats"])


def test_notices_name_agents_and_places_together(tmp_path: Path) -> None:
    everywhere = [t for task in ("a", "b") for t in runs_of({"random": LOW}, task=task, budget="macs:0.3")]
    here = [t for task in ("a", "b") for t in runs_of({"random": LOW, "ppo": HIGH, "sac": HIGH}, task=task)]
    said = compared(tmp_path, [*everywhere, *here])["caveats"]
    assert any(text.startswith("ppo and sac have no complete run on a and b at macs:0.3: their") for text in said)


def test_an_agent_that_lacks_a_task_comes_last_and_is_said(tmp_path: Path) -> None:
    runs = [t for task, budget in TWO for t in runs_of({"random": LOW}, task=task, budget=budget)]
    result = compared(tmp_path, [*runs, *runs_of({"ppo": HIGH})])
    agents = {agent["label"]: agent for agent in result["post_training"]["agents"]}
    assert list(agents)[-1] == "ppo"
    assert not agents["ppo"]["complete"]
    assert any("ppo has no complete run on digits at macs:0.2" in said for said in result["caveats"])
    assert len(pair(result, "ppo", "random")["cells"]) == 1  # pairs are compared where both were


def test_curves_end_at_the_last_incumbent(tmp_path: Path) -> None:
    runs = ladder(["ppo", "random"], seeds=4)
    result = compared(tmp_path, runs)
    lines = result["anytime"]["evaluations"]
    assert (lines["grid"][0], lines["grid"][-1]) == (1, 300)
    finals = {
        a: [t.anytime.incumbents[-1].held_out for t in runs if t.agent == a and t.anytime] for a in ("ppo", "random")
    }
    best = max(max(values) for values in finals.values())
    for agent, values in finals.items():
        last = (np.sort(values)[1:3].mean() + 1) / (best + 1)
        assert lines["agents"][agent]["iqm"][-1] == pytest.approx(last)
    (cell,) = result["anytime"]["cells"]
    assert cell["seconds"]["agents"]["ppo"]["iqm"][-1] == pytest.approx(lines["agents"]["ppo"]["iqm"][-1])
    assert set(lines["agents"]) == {"ppo", "random"}  # baselines do not search


def test_a_curve_begins_where_every_seed_has_a_plan(tmp_path: Path) -> None:
    runs = ladder(["ppo", "random"], seeds=4)
    late = runs[0].anytime
    assert late is not None
    runs[0] = replace(runs[0], anytime=replace(late, incumbents=late.incumbents[5:]))
    line = compared(tmp_path, runs)["anytime"]["evaluations"]
    begins = next(e for e, value in zip(line["grid"], line["agents"]["ppo"]["iqm"], strict=True) if value is not None)
    assert begins >= late.incumbents[5].evaluation
    assert line["agents"]["random"]["iqm"][0] is not None


def test_fronts_need_several_budgets(tmp_path: Path) -> None:
    assert compared(tmp_path, ladder(["ppo", "random"]))["post_training"]["fronts"] == []
    (front,) = compared(tmp_path, ladder(["ppo", "random"], cells=TWO))["post_training"]["fronts"]
    ppo = front["agents"]["ppo"]
    assert [cost for cost, _ in ppo["points"]] == pytest.approx([0.2, 0.35])
    assert ppo["hypervolume"]["low"] <= ppo["hypervolume"]["value"] <= ppo["hypervolume"]["high"] < 0.8
    assert ppo["hypervolume"]["value"] > front["agents"]["uniform"]["hypervolume"]["value"]


def test_median_plans(tmp_path: Path) -> None:
    runs = ladder(["ppo"], seeds=3)
    (plans,) = compared(tmp_path, runs)["plans"]
    kept = np.median([t.own.plan.kept for t in runs], axis=0) / runs[0].own.plan.units
    assert plans["agents"]["ppo"] == pytest.approx(kept)
    assert set(plans["agents"]) == {"ppo", "uniform", "sensitivity"}


def test_everything_is_json_and_missing_jobs_are_kept(tmp_path: Path) -> None:
    missing = [Missing("sweep/3", "agent=ppo seed=3", "cut off after 12 evaluations")]
    result = compared(tmp_path, ladder(["ppo", "random"], cells=TWO), missing=missing)
    assert json.loads(json.dumps(result)) == result
    assert result["missing"] == [{"where": "sweep/3", "what": "agent=ppo seed=3", "reason": missing[0].reason}]
    assert result["seconds"][0]["agent_each"] == pytest.approx(result["seconds"][0]["agent"] / 300)


def test_agents_of_that_name_take_the_baselines_place(tmp_path: Path) -> None:
    result = compared(tmp_path, runs_of({"uniform": [-1.0] * 4, "ppo": HIGH[:4]}))
    assert {name: entry["baseline"] for name, entry in result["agents"].items()} == {
        "uniform": False, "ppo": False, "sensitivity": True,
    }  # fmt: skip


# Agents by their policies' own plans, where the answers are known
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
