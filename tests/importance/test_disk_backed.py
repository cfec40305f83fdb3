"""Scores that come back from a file are the ones that were given."""

import pytest
import torch

from autoprune.importance import disk_backed as disk_backed
from autoprune.importance.disk_backed import DiskBackedScores


def test_scores_come_back_from_the_file_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.randn(3, 5, generator=generator), "b": torch.randn(7, generator=generator)}
    kept = DiskBackedScores(scores)
    assert list(kept) == ["a", "b"]
    assert len(kept) == 2
    for name in ("b", "a", "b"):
        assert torch.equal(kept[name], scores[name])
    kept["a"].zero_()  # a copy: what is read again is as it was
    assert torch.equal(kept["a"], scores["a"])
    with pytest.raises(KeyError):
        kept["c"]
    assert kept.get("c") is None


def test_only_large_scores_leave_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"a": torch.ones(10)}
    assert disk_backed.disk_backed(scores) is scores
    monkeypatch.setattr(disk_backed, "LARGE_BYTES", 39)
    assert isinstance(disk_backed.disk_backed(scores), DiskBackedScores)
