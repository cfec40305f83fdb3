"""What `gymnasium.make` calls: the environments of this room, whose wrong arguments are a sentence each."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import gymnasium

from autoprune.ranges import checked_call
from autoprune.schedule.rounds_env import RoundsEnv
from autoprune.schedule.schedule_env import ScheduleEnv
from autoprune.schedule.schedule_table import ScheduleTableEnv
from autoprune.schedule.training_env import EpisodeSettings

KINDS: Mapping[str, type[gymnasium.Env[Any, Any]]] = {
    "schedule": ScheduleEnv,
    "rounds": RoundsEnv,
    "table": ScheduleTableEnv,
}


def training_env(*, kind: str, **given: Any) -> gymnasium.Env[Any, Any]:
    """`gym.make("autoprune/Schedule-v0", task="digits", density=0.05)`

    Args:
        kind: Which environment, set where it is registered.
        given: Arguments of that class, and of EpisodeSettings where it trains.

    Raises:
        ValueError: One is missing, unknown or not what it has to be.
    """
    options = None if kind == "table" else get_type_hints(EpisodeSettings, include_extras=True)
    return checked_call(KINDS[kind], given, owner="the environment", options=options)
