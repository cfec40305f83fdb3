"""What is said of a policy's training can be true, or it is refused."""

from dataclasses import asdict
from typing import Any

import pytest

from autoprune.agent.training_record import TrainingRecord
from tests.agent.policies import ELSEWHERE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": {"macs": [0.2, 1.5]}}, r"budgets of 'macs' must be .*0 < lowest ≤ highest ≤ 1, got \[0.2, 1.5\]"),
        ({"budgets": {"macs": [0.0, 0.5]}}, "budgets of 'macs' must be"),
        ({"budgets": {"macs": [0.8, 0.2]}}, "budgets of 'macs' must be"),
        ({"budgets": {"macs": 0.5}}, "budgets of 'macs' must be"),
        ({"max_log_correction": 0}, "max_log_correction must be above 0, or null, got 0"),
        ({"max_log_correction": True}, "max_log_correction must be above 0"),
        ({"normaliser": {"depth": [0.0, 0.0]}}, "normaliser of 'depth' must be .*spread > 0"),
        ({"normaliser": {"width": [0.0, 1.0]}}, r"normaliser must be of features, .*got \['width'\]"),
        ({"held_out": [{"network": "a"}]}, "held_out must be tables of"),
        ({"features": "depth"}, "features must be a list of names, got 'depth'"),
        ({"seeds": [0.5]}, "seeds must be a list of whole numbers"),
        ({"evaluations": -1}, "evaluations must be a whole number of plans, got -1"),
        ({"mode": None}, "mode must be text, got None"),
        ({"curves": 1}, "curves must be true or false"),
        ({"wings": 2}, r"unknown \['wings'\]"),
    ],
)
def test_training_that_cannot_have_been_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^training.*{message}"):
        TrainingRecord.read(asdict(ELSEWHERE) | changes)


def test_training_is_read_as_it_was_written() -> None:
    assert TrainingRecord.read(asdict(ELSEWHERE)) == ELSEWHERE


def test_what_lacks_is_named() -> None:
    written = asdict(ELSEWHERE)
    del written["seeds"]
    with pytest.raises(ValueError, match=r"lacking \['seeds'\]"):
        TrainingRecord.read(written)
