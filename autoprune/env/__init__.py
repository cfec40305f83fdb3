"""Gymnasium environments: the objective, revealed one group at a time or all at once, for one episode or for many."""

import gymnasium

for _name, _maker in {"Layerwise-v0": "layerwise", "OneShot-v0": "one_shot"}.items():
    gymnasium.register(
        f"autoprune/{_name}",
        entry_point=f"autoprune.env.make:{_maker}",
        vector_entry_point=f"autoprune.env.make:{_maker}_vector",
    )
