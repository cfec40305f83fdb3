import dataclasses
from typing import Any

import pytest

from autoprune.evaluation.settings import EvaluationSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "threads"}, r"pool.*'threads'"),
        ({"pool": "ray"}, r"pool=ray needs evaluation\.workers of at least 1"),
        ({"address": "ray://there:1"}, r"address=ray://there:1 .* needs evaluation\.pool=ray"),
        ({"address": "ray://there:1", "workers": 2}, r"needs evaluation\.pool=ray"),
        ({"time_limit_s": 5.0}, r"time_limit_s=5\.0 needs evaluation\.workers"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": "auto", "precision": "bf16"},
        {"workers": 2, "time_limit_s": 0.5},
        {"workers": 1, "pool": "ray", "address": "ray://there:1"},
    ],
)
def test_sensible_settings_are_kept(changes: dict[str, Any]) -> None:
    settings = dataclasses.asdict(EvaluationSettings(**changes))
    assert settings | changes == settings
