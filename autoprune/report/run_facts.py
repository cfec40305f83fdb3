"""What a run did beside its search, in sentences: recoveries that harmed, what baselines took, what was planned."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.report.contents import Contents
from autoprune.report.wording import Quality, counted, duration, number


def harmed(contents: Contents) -> str:
    """Which networks recovery made worse; empty where there is none."""
    networks = [network for network in contents.networks if network.harmed is not None]
    if not networks:
        return ""
    quality = Quality.of(contents)
    each = [
        f"{network.name} from {quality.text(network.held_out)} to {quality.text(network.harmed or {})}, KL to dense "
        f"from {number(network.held_out.get('kl'))} to {number((network.harmed or {}).get('kl'))}"
        for network in networks
    ]
    worse = f"Recovery made {counted(len(networks), 'network')} worse on search data that no reward has seen"
    return (
        f"{worse} ({quality.title} of {'; '.join(each)}), so what pruning left is kept. Try a lower "
        "learning rate (recover.learning_rate), more steps (recover.steps) or recover=none."
    )


def spent(evaluations: Mapping[str, Any]) -> str:
    """15 spent of 15, and what the baselines took besides.

    Args:
        evaluations: Those of result.json.
    """
    text = f"{evaluations['spent']} spent of {evaluations['limit']}"
    baselines = evaluations.get("baselines")
    if not baselines:
        return text
    plans, whole = counted(baselines["plans"], "plan"), f"{baselines['whole']:.3g}"
    return f"{text}; the baselines took {plans} besides, judged on as many samples as {whole} whole evaluations"


def planned(seconds: Mapping[str, float], plan: Mapping[str, Sequence[float]]) -> str:
    """What the plan of time said of the stages that `seconds` has, such as 2 min to 5 min; empty without a plan.

    Args:
        seconds: Stage → what it took.
        plan: Stage → what it was planned to take, at least and at most.
    """
    stages = [plan[stage] for stage in seconds if stage in plan]
    least, most = (duration(sum(stage[end] for stage in stages)) for end in (0, 1))
    return (least if least == most else f"{least} to {most}") if stages else ""
