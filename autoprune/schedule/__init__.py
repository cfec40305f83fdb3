"""Pruning while a network trains: masks, one engine, the schedules that decide what is removed when, environments."""

import gymnasium

for _name, _kind in {"Schedule-v0": "schedule", "Rounds-v0": "rounds", "ScheduleTab-v0": "table"}.items():
    gymnasium.register(
        f"autoprune/{_name}", entry_point="autoprune.schedule.make_training:training_env", kwargs={"kind": _kind}
    )
