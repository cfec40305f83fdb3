"""What is said of a policy's training can be true, or it is refused."""

from dataclasses import asdict
from typing import Any

import pytest

from autoprune.agent.training_record import TrainingRecord
from tests.agent.policies import ELSEWHERE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": {"macs": [0.2, 1.5]}}, r"budgets must be .*\(0, 1\].*got {'macs': \[0.2, 1.5\]}"),
        ({"budgets": {"macs": [0.2, 0.3, 0.4]}}, "budgets must be .*a list of 2"),
        ({"budgets": {"macs": [0.8, 0.2]}}, "budgets of 'macs' must be"),
        ({"max_log_correction": 0}, r"max_log_correction must be in \(0, inf\) or None, got 0"),
        ({"normaliser": {"depth": [0.0, 0.0]}}, "normaliser of 'depth' must be .*spread > 0"),
        ({"normaliser": {"width": [0.0, 1.0]}}, r"normaliser must be of features, .*got \['width'\]"),
        ({"normaliser": {"depth": [float("nan"), 1.0]}}, "normaliser must be"),
        ({"held_out": [{"network": "a"}]}, "held_out's family must be a text, got None"),
        ({"seeds": [0.5]}, "seeds must be a list of which each is a whole number"),
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
