"""What holds for the whole suite: one thread, and examples that are fixed in the fast stage, fresh in the slow one."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import settings

from autoprune import final_networks
from tests.models import PRUNABLE, Network

torch.set_num_threads(1)
# The fast stage tries a few fixed examples; the slow stage (`-m "slow or hypothesis" --hypothesis-profile=fresh`) tries
# others on every run, and prints how to repeat the one that fails.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=8)
settings.register_profile("fresh", deadline=None, derandomize=False, max_examples=25, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def latency_is_measured_in_few_turns() -> Iterator[None]:
    """What a job says of latency here is looked at for being there; how it is measured has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_networks, "measure_latency", partial(final_networks.measure_latency, repeats=10))
        yield


@pytest.fixture(params=PRUNABLE)
def network(request: pytest.FixtureRequest) -> Network:
    """Each of the small networks in turn."""
    return PRUNABLE[request.param]
