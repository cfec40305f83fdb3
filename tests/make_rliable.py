"""Makes rliable.json: scores, and what the package rliable says of them. It is no dependency: it needs pandas < 3.

pip install "rliable==1.2.0" "pandas<3" && python tests/make_rliable.py
"""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

REPS = 5_000
SHAPES = {"few": (5, 3), "many": (20, 4)}  # runs, tasks
THRESHOLDS = np.linspace(-0.5, 1.5, 21)


def main() -> None:
    found = {}
    for name, (runs, tasks) in SHAPES.items():
        rng = np.random.default_rng(7)
        spread, middle = rng.uniform(0.05, 0.3, tasks), rng.uniform(0.2, 0.8, tasks)
        a = (middle + 0.1 + spread * rng.standard_normal((runs, tasks))).round(2)
        b = (middle + spread * rng.standard_normal((runs, tasks))).round(2)  # rounded: there are ties
        points, intervals = library.get_interval_estimates(
            {"a": a, "b": b},
            lambda x: np.array([metrics.aggregate_iqm(x)]),
            reps=REPS,
            random_state=np.random.RandomState(0),
        )
        better, of_better = library.get_interval_estimates(
            {"a,b": (a, b)}, metrics.probability_of_improvement, reps=REPS, random_state=np.random.RandomState(0)
        )
        profiles, bands = library.create_performance_profile({"a": a, "b": b}, THRESHOLDS, reps=REPS)
        found[name] = {
            "scores": {"a": a.tolist(), "b": b.tolist()},
            "iqm": {agent: [float(points[agent][0]), *intervals[agent].ravel().tolist()] for agent in "ab"},
            "improvement": [float(better["a,b"]), *of_better["a,b"].ravel().tolist()],
            "profile": {agent: profiles[agent].tolist() for agent in "ab"},
            "band": {agent: bands[agent].tolist() for agent in "ab"},
        }
    record = {"made_by": "rliable 1.2.0", "thresholds": THRESHOLDS.tolist(), "cases": found}
    Path(__file__).with_name("rliable.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
