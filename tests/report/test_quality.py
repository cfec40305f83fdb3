"""Tables, headlines and figures name what is measured by the task's kind."""

import math
from typing import Any

import pytest

from autoprune.report.contents import Contents
from autoprune.report.wording import Quality, drawn_metric


def contents(judged: dict[str, Any] | None) -> Contents:
    run = {} if judged is None else {"judged": judged}
    return Contents(run, {}, {}, [], [], None, "", ())


METRICS = {"accuracy": 0.931, "loss": math.log(12.5), "agreement": 0.5, "kl": 0.1}


@pytest.mark.parametrize(
    ("judged", "sentence", "drawn"),
    [
        (None, "93.1 % accuracy", "accuracy"),
        ({"kind": "classification", "metric": "accuracy", "percent": True}, "93.1 % accuracy", "accuracy"),
        ({"kind": "language", "metric": "accuracy", "percent": True}, "perplexity 12.500", "accuracy"),
        ({"kind": "regression", "metric": "R²", "percent": False}, "R² 0.931", "agreement"),
        ({"kind": "classification", "metric": "roc_auc", "percent": False}, "roc_auc 0.931", "agreement"),
        ({"kind": "embedding", "metric": None, "percent": False}, "50.0 % agreement", "agreement"),
    ],
)
def test_numbers_have_the_name_and_unit_of_their_kind(judged: dict[str, Any] | None, sentence: str, drawn: str) -> None:
    run = contents(judged)
    assert Quality.of(run).sentence(METRICS).replace("\u00a0", " ") == sentence
    assert drawn_metric(run) == drawn
    assert Quality.of(run).text({}) == "–"
