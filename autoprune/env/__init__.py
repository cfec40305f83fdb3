"""Gymnasium environments: the objective revealed group by group, at once, or by edits; for one episode or many."""

import gymnasium

for _name, _maker in {"Layerwise-v0": "layerwise", "OneShot-v0": "one_shot", "Edit-v0": "edit"}.items():
    gymnasium.register(
        f"autoprune/{_name}",
        entry_point=f"autoprune.env.make:{_maker}",
        vector_entry_point=f"autoprune.env.make:{_maker}_vector",
    )
