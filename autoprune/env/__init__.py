"""Gymnasium environments: the objective revealed group by group, at once, or by edits; for one episode or many."""

from typing import Any

import gymnasium

_OPTIONS: dict[str, dict[str, Any]] = {
    "Layerwise-v0": {"mode": "layerwise"},
    "Levels-v0": {"mode": "layerwise", "levels": 10},
    "OneShot-v0": {"mode": "one_shot"},
    "Edit-v0": {"mode": "edit", "prior": "uniform", "max_log_correction": 1.0, "edits": 3, "length": 1},
}
for _name, _options in _OPTIONS.items():
    gymnasium.register(
        f"autoprune/{_name}",
        entry_point="autoprune.env.make:single",
        vector_entry_point="autoprune.env.make:vector",
        kwargs=_options,
    )
