"""What `gymnasium.make` calls: the environments of this room, whose wrong arguments are a sentence each."""

from typing import Any, get_type_hints

from autoprune.ranges import checked_call
from autoprune.schedule.rounds_env import RoundsEnv
from autoprune.schedule.schedule_env import ScheduleEnv
from autoprune.schedule.schedule_table import ScheduleTableEnv
from autoprune.schedule.training_env import EpisodeSettings

_EPISODES = get_type_hints(EpisodeSettings, include_extras=True)


def schedule(**given: Any) -> ScheduleEnv:
    """`gym.make("autoprune/Schedule-v0", task="digits", density=0.05)`

    Args:
        given: Arguments of ScheduleEnv.

    Raises:
        ValueError: One is missing, unknown or not what it has to be.
    """
    return checked_call(ScheduleEnv, given, owner="the environment", options=_EPISODES)


def rounds(**given: Any) -> RoundsEnv:
    """`gym.make("autoprune/Rounds-v0", task="digits", density=0.05)`

    Args:
        given: Arguments of RoundsEnv.

    Raises:
        ValueError: One is missing, unknown or not what it has to be.
    """
    return checked_call(RoundsEnv, given, owner="the environment", options=_EPISODES)


def schedule_table(**given: Any) -> ScheduleTableEnv:
    """`gym.make("autoprune/ScheduleTab-v0", table="digits_mlp")`

    Args:
        given: Arguments of ScheduleTableEnv.

    Raises:
        ValueError: One is missing, unknown or not what it has to be.
    """
    return checked_call(ScheduleTableEnv, given, owner="the environment")
