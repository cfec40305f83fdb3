"""The page of pruned trainings says means over seeds, with intervals that SciPy gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from autoprune.report.training_page import headline, render_trainings, summary_table, write_trainings_comparison


def result(
    series: str, accuracy: float, *, seed: int = 0, density: float = 0.1, task: str = "digits"
) -> dict[str, Any]:
    point = {"series": series, "density": density, "macs": 100.0, "test_accuracy": accuracy}
    return {
        "kind": "pruned_training", "command": "train-pruned", "task": task, "schedule": series, "seed": seed,
        "granularity": "weight", "density": density, "weights": 10, "total": 100,
        "training": {"steps": 50, "macs": 100.0}, "dense": {"test_accuracy": 0.9}, "points": [point],
        "history": [{"macs": 10.0 * i, "density": 1 / i, "loss": 1 / i} for i in (1, 2, 3)],
    }  # fmt: skip


RUNS = [result("cubic", value, seed=seed) for seed, value in enumerate((0.8, 0.82, 0.85))] + [result("set", 0.7)]


def test_means_and_intervals_over_seeds() -> None:
    cells = [[cell.text for cell in row.cells] for row in summary_table(RUNS).rows]
    values = np.array([0.8, 0.82, 0.85])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert cells[0][1:4] == ["3", "82.33\u00a0%", f"± {100 * (high - low) / 2:.2f}"]
    assert cells[1][1:4] == ["1", "70.00\u00a0%", "–"]


def test_the_headline_names_the_best_series() -> None:
    assert (
        headline(RUNS)
        == "cubic keeps 10.0\u00a0% of the weights at 82.3\u00a0% accuracy, the dense network 90.0\u00a0%"
    )


def test_a_run_and_a_comparison_have_a_page(tmp_path: Path) -> None:
    page = render_trainings(RUNS[:1], run={"name": "<mine>", "overrides": ["task=digits"]})
    assert "&lt;mine&gt;" in page
    assert "How it went" in page
    assert "autoprune train-pruned task=digits" in page
    written = write_trainings_comparison(RUNS, tmp_path).read_text()
    assert "Accuracy over training" in written
    assert "How it went" not in written
    with pytest.raises(ValueError, match="these runs are of"):
        write_trainings_comparison([*RUNS, result("set", 0.5, task="other")], tmp_path)


def test_what_is_no_accuracy_is_named_and_not_written_in_percent() -> None:
    judged = {"kind": "regression", "metric": "R²", "percent": False}
    text = headline([{**result("cubic", 0.959, density=0.3), "judged": judged}])
    assert text == "cubic keeps 30.0\u00a0% of the weights at R² 0.959, the dense network 0.900"
    table = summary_table([{**result("cubic", 0.959), "judged": judged}])
    assert [title for _, title in table.columns][-3:-1] == ["test R²", "95 % interval"]
