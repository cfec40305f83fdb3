"""What a tracker gets of a run beside its metrics: what to group it by, its summary, its plan, its artifacts."""

from collections.abc import Mapping
from typing import Any

from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder
from autoprune.tracking import Tracker

DENSE, SEARCHED = "dense", "searched"  # networks of result.json
ARTIFACTS = (  # (name, what of the run folder, kind); only searches that learn have a policy
    ("result", "result.json", "result"),
    ("plan", "plan.json", "plan"),
    ("network", "network", "model"),
    ("policy", "policy", "policy"),
)


def tracked_config(settings: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's configuration, with what runs are grouped by at the top.

    Args:
        settings: The resolved configuration, which is kept whole under its own key.
        record: What `run.json` holds, kept whole too.
    """
    recovered = not settings["recover"]["_target_"].endswith(".no_recovery")
    return {
        "task": record["task"],
        "agent": record["agent"],
        "mode": (settings["agent"].get("env") or {}).get("mode"),  # of agents that learn; None for any other search
        "budget": record["budget"]["text"],
        "evaluations": settings["evaluations"],
        "seed": record["seed"],
        "regime": "recovered" if recovered else "post-training",
        "settings": dict(settings),
        "run": dict(record),
    }


def track_result(tracker: Tracker, result: Mapping[str, Any], plan: PruningPlan, *, run: RunFolder) -> None:
    """The tracker has a complete run's summary, its chosen plan as a table and as a picture, and its artifacts.

    Args:
        tracker: Of the run.
        result: What `result.json` holds.
        plan: The chosen network's.
        run: Where the artifacts stand.
    """
    tracker.summary(summary_of(result))
    if policy := result.get("policy"):  # once in a run: W&B draws a bar for each run
        worth = {"policy/best": policy["score"], "policy/over_uniform": policy["score"] - policy["uniform"]}
        tracker.log(worth, axis="evaluation", step=result["evaluations"]["spent"])
    rows = [
        [group, units, kept, 1 - kept / units]
        for group, units, kept in zip(plan.groups, plan.units, plan.kept, strict=True)
    ]
    tracker.table("plan", ["group", "units", "kept", "sparsity"], rows)
    tracker.bars("plan_sparsity", plan.groups, list(plan.sparsity.values()), title="Sparsity per group")
    for name, path, kind in ARTIFACTS:
        if (run.path / path).exists():
            tracker.artifact(name, run.path / path, kind=kind)


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what one sorts runs by, from `result.json`; searches are compared by their own plans, `…_searched`.

    What a stage that failed has not measured is left out.
    """
    networks, dense = result["networks"], result["networks"][DENSE]
    chosen, plans = networks[result["chosen"]], {name: n for name, n in networks.items() if name != DENSE}
    summary = {
        "result/chosen": result["chosen"],
        "result/score": networks[SEARCHED].get("score"),
        "result/recovered_score": networks[SEARCHED].get("recovered_score"),
        "result/evaluations": result["evaluations"]["spent"],
        "result/accuracy_before": _accuracy(chosen, "before"),
        "result/accuracy_after": _accuracy(chosen, "after"),
        "result/accuracy_dense": _accuracy(dense, "before"),
        **{f"result/accuracy_before_{name}": _accuracy(network, "before") for name, network in plans.items()},
        **{f"result/accuracy_after_{name}": _accuracy(network, "after") for name, network in plans.items()},
        **{f"result/{cost}": value for cost, value in chosen["cost"].items()},
        **{f"result/{cost}_left": value / dense["cost"][cost] for cost, value in chosen["cost"].items()},
        **{f"result/seconds_{stage}": seconds for stage, seconds in result["seconds"].items()},
        **{f"result/seconds_{part}": seconds for part, seconds in result["search_seconds"].items()},
        **_summary_of_policy(result.get("policy")),
        **{
            f"result/speedup_{runtime}": dense["latency_ms"][runtime]["median"] / value["median"]
            for runtime, value in chosen.get("latency_ms", {}).items()
        },
    }
    return {key: value for key, value in summary.items() if value is not None}


def _accuracy(network: Mapping[str, Any], when: str) -> float | None:
    """Before or after recovery; None where it was not measured."""
    accuracy: float | None = (network.get(when) or {}).get("accuracy")
    return accuracy


def _summary_of_policy(policy: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a policy's own plan is worth beside the search's; nothing where none was learned."""
    if policy is None:
        return {}
    return {
        "result/policy_score": policy["score"],
        "result/policy_gap": policy["gap"],
        "result/policy_over_uniform": policy["score"] - policy["uniform"],
    }
