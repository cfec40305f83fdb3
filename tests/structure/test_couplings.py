"""What the experiments on a network conclude, where its random weights mislead them."""

from types import SimpleNamespace

import numpy as np
import pytest

from autoprune.structure.couplings import Laboratory


@pytest.mark.parametrize("looks", [[True], [True, False], [False]])
def test_a_coincidence_of_random_weights_is_no_block(looks: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look sees units beside what all blocks share, and no later one does: nothing is said of them."""
    laboratory = object.__new__(Laboratory)
    tap = SimpleNamespace(nodes=np.arange(12), layer="reader")
    answers = iter([(6, []) if look else None for look in looks])
    monkeypatch.setattr(Laboratory, "_in_one_block", lambda *_: next(answers, None))
    note = pytest.fail
    assert not laboratory._beside_shared(tap, [], note)  # type: ignore[arg-type]
