"""What holds for the whole suite: one thread, and examples that are fixed in the fast stage, fresh in the slow one."""

import pytest
import torch
from hypothesis import settings

from tests.models import PRUNABLE, Network

torch.set_num_threads(1)
# The fast stage tries a few fixed examples; the slow stage (`-m "slow or hypothesis" --hypothesis-profile=fresh`) tries
# others on every run, and prints how to repeat the one that fails.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=12)
settings.register_profile("fresh", deadline=None, derandomize=False, max_examples=40, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(params=PRUNABLE)
def network(request: pytest.FixtureRequest) -> Network:
    """Each of the small networks in turn."""
    return PRUNABLE[request.param]
