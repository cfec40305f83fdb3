"""What tests of training runs share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.schedule.masked_training import Snapshot


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The content of every snapshot that a run has saved since, in order; a file holds the last one only."""
    contents: list[bytes] = []
    save = Snapshot.save

    def noted(self: Snapshot, path: Path) -> None:
        save(self, path)
        contents.append(path.read_bytes())

    monkeypatch.setattr(Snapshot, "save", noted)
    yield contents
    assert len(contents) > 1, "too little was saved for anything to be resumed"
