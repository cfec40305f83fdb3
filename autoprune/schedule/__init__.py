"""Pruning while a network trains: masks, one engine, the schedules that decide what is removed when, environments."""

import gymnasium

gymnasium.register("autoprune/Schedule-v0", entry_point="autoprune.schedule.schedule_env:ScheduleEnv")
gymnasium.register("autoprune/Rounds-v0", entry_point="autoprune.schedule.rounds_env:RoundsEnv")
gymnasium.register("autoprune/ScheduleTab-v0", entry_point="autoprune.schedule.schedule_table:ScheduleTableEnv")
