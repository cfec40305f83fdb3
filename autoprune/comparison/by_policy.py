"""Agents by what their policies propose, not by the best plan that their searches met."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autoprune.comparison.agent_ranking import Ranking
from autoprune.comparison.caveats import listed
from autoprune.comparison.comparability import Cell
from autoprune.comparison.run_summary import UNIFORM, MeasuredPlan, RunSummary
from autoprune.comparison.score_scale import scale_of
from autoprune.statistics import Floats

MET = "a search"  # whose best plan it is
Json = dict[str, Any]


def with_policies(runs: Sequence[RunSummary]) -> tuple[list[RunSummary], list[str]]:
    """The runs that have a policy, each with its policy's own plan for its search's, and a sentence about the others.

    The plan, the uniform one and the best one that the search met are judged on the same samples, those that the
    search saw. A policy's plan is not recovered, and the sensitivity-based plan was not judged on these samples.

    Args:
        runs: Summaries of runs.

    Raises:
        ValueError: None of them has a policy.
    """
    if not any(run.policy for run in runs):
        raise ValueError(
            "none of the runs has a policy whose own plan was evaluated, so there is nothing to compare by=policy; "
            "give runs of agents that learn, such as agent=ppo, or compare them with by=search"
        )
    learned = {run.agent for run in runs if run.policy}
    without = sorted({run.agent for run in runs} - learned)
    partly = sorted({run.agent for run in runs if run.policy is None} & learned)
    left_out = [f"{listed(without)} learned no policy: left out here, where policies are compared."] if without else []
    left_out += (
        [f"Runs of {listed(partly)} in which no policy's own plan was evaluated are left out."] if partly else []
    )
    return [_by_policy(run) for run in runs if run.policy is not None], left_out


def rank_policies(runs: Iterable[RunSummary], names: Iterable[str]) -> Json | None:
    """What stands beside the searches' ranking: that of their policies' own plans; None where no agent has one.

    Args:
        runs: Summaries of runs.
        names: For each run its agent's label.
    """
    labelled: dict[str, dict[Cell, list[RunSummary]]] = defaultdict(lambda: defaultdict(list))
    for run, name in zip(runs, names, strict=True):
        if run.policy is not None:
            labelled[name][run.cell].append(_by_policy(run))
    cells = sorted({cell for ours in labelled.values() for cell in ours})
    scales = {cell: scale_of(cell, {name: ours.get(cell, ()) for name, ours in labelled.items()}) for cell in cells}
    scores: dict[str, dict[Cell, Floats]] = {
        name: {
            cell: scales[cell](np.array([run.own.score for run in sorted(ours, key=lambda run: run.seed)]))
            for cell, ours in by_cell.items()
            if not scales[cell].flat
        }
        for name, by_cell in labelled.items()
    }
    scores = {name: ours for name, ours in scores.items() if ours}
    if not scores:
        return None
    scaled = [{"cell": list(cell), **asdict(scale)} for cell, scale in scales.items()]
    return Ranking("policy", scores).as_json() | {"cells": scaled}


def uniform_caveats(runs: Iterable[RunSummary], names: Iterable[str]) -> list[str]:
    """A sentence for each agent some of whose policies propose a plan that is worse than uniform.

    Args:
        runs: Summaries of runs.
        names: For each run its agent's label.
    """
    worse: dict[str, list[bool]] = defaultdict(list)
    for run, name in zip(runs, names, strict=True):
        if run.policy is not None:
            worse[name].append(run.policy.score < run.policy.uniform)
    return [
        f"Of {name}, the policy's own plan is worse than the uniform one in {sum(ours)} of {len(ours)} runs."
        for name, ours in sorted(worse.items())
        if any(ours)
    ]


def _by_policy(run: RunSummary) -> RunSummary:
    policy = run.policy
    assert policy is not None, "runs without a policy are left out before"
    baselines = {UNIFORM: MeasuredPlan(run.baselines[UNIFORM].plan, policy.uniform)}
    if policy.best is not None:
        baselines[MET] = MeasuredPlan(run.own.plan, policy.best)
    own = MeasuredPlan(policy.plan, policy.score)
    return replace(run, own=own, baselines=baselines, anytime=None, seconds=None, agent_seconds=None)
