"""What is called otherwise since version 0.2: it is refused with its new name, for one version."""

from collections.abc import Mapping, Sequence
from typing import Any

SINCE = "0.2"
CHOICES = {  # files of a group
    "agent=advised": "agent=critic_guided",
    "agent=carried": "agent=transferable",
    "importance=suited": "importance=default",
    "reward=lagrangian": "constraint=lagrangian",  # whose business the budget is
    "score=fine_tuned": "evaluation/training=fine_tuned",
    "agent.agent.network=carried": "agent.agent.network=transferable",
}
KEYS = {
    "agent.credit": "agent.env.reward_shaping",
    "agent.greedy_every": "agent.policy_evaluations",
    "agent.reach": "agent.env.max_log_correction",
    "agent.sees": "agent.env.observation",
    "agent.tells": "agent.env.seed_replay",
    **{f"agent.{name}": f"agent.env.{name}" for name in ("mode", "prior", "levels", "edits", "length")},
    "device.place": "device.device_type",
    "agent.agent.reach": "agent.agent.max_log_correction",
    "agent.agent.proposals.many": "agent.agent.critic_guidance.candidates_per_evaluation",
    "agent.agent.proposals.from_actor": "agent.agent.critic_guidance.actor_fraction",
    "agent.agent.proposals.near": "agent.agent.critic_guidance.neighbour_fraction",
    "agent.agent.proposals.changes": "agent.agent.critic_guidance.max_changed_groups",
    "agent.agent.proposals.optimism": "agent.agent.critic_guidance.ucb_coefficient",
    "agent.agent.proposals.crosses": "agent.agent.critic_guidance.crossover_probability",
    "agent.agent.proposals.unasked": "agent.agent.critic_guidance.exploration_fraction",
    "agent.agent.proposals": "agent.agent.critic_guidance",
}
TARGETS = {"autoprune.importance.suited.suited": "autoprune.importance.default_criterion.default_criterion"}


def refuse_old_names(overrides: Sequence[str]) -> None:
    """Nothing that a command is told has an old name. An agent of the person's own may have settings of any name.

    Raises:
        ValueError: With the new name.
    """
    own = any(override.startswith("agent._target_=") for override in overrides)
    for override in overrides:
        key, equals, values = override.lstrip("+~").partition("=")
        for value in values.split(","):
            if (choice := f"{key.partition('@')[0]}={value}") in CHOICES:
                raise ValueError(f"{choice} is called {CHOICES[choice]} since {SINCE}")
        for old, new in KEYS.items():
            if equals and not own and (key == old or key.startswith(f"{old}.")):
                raise ValueError(f"{key} is called {new}{key.removeprefix(old)} since {SINCE}")


def refuse_old_settings(settings: Mapping[str, Any], *, where: str) -> None:
    """No setting of a run has an old name.

    Raises:
        ValueError: With the new name.

    Args:
        settings: A run's configuration.
        where: Where they come from, for messages.
    """

    def refuse(old: str, new: str) -> None:
        raise ValueError(
            f"{where} is of autoprune 0.1: {old} is called {new} since {SINCE}. Make the run again, or read it with "
            "the version that wrote it"
        )

    agent = settings.get("agent")
    own = not isinstance(agent, Mapping) or not str(agent.get("_target_")).startswith("autoprune.")
    for old, new in () if own else KEYS.items():
        value: Any = settings
        for key in old.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            refuse(old, new)
    for name, part in settings.items():
        target = part.get("_target_") if isinstance(part, Mapping) else None
        if isinstance(target, str) and target in TARGETS:
            refuse(f"{name}._target_={target}", TARGETS[target])
