"""What holds for the whole suite: one thread, and the same examples on every run."""

import pytest
import torch
from hypothesis import settings

from tests.models import PRUNABLE, Network

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("suite")


@pytest.fixture(params=PRUNABLE)
def network(request: pytest.FixtureRequest) -> Network:
    """Each of the small networks in turn."""
    return PRUNABLE[request.param]
