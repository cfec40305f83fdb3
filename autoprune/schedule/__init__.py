"""Pruning while a network trains: masks, one engine, the schedules that decide what is removed when, environments."""

import gymnasium

_HOME = "autoprune.schedule.make_training"
for _name, _function in {"Schedule-v0": "schedule", "Rounds-v0": "rounds", "ScheduleTab-v0": "schedule_table"}.items():
    gymnasium.register(f"autoprune/{_name}", entry_point=f"{_HOME}:{_function}")
