"""What holds for the whole suite: one thread, and examples of properties that are fixed by default, fresh in .ci/run.

torch is imported where tests run: the process that only hands them out to others starts without it.
"""

import gc
import signal
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.models import Network

# By default a few fixed examples are tried; `--hypothesis-profile=fresh`, as in .ci/run, tries more and others, and
# prints how to repeat the one that fails.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=8)
settings.register_profile("fresh", deadline=None, derandomize=False, max_examples=25, print_blob=True)
settings.load_profile("fixed")
NETWORKS = (
    "residual", "dense", "separable", "grouped", "plain", "flattened", "prelu", "conv1d", "bn_without_affine", "tokens",
    "layer_norm", "softmax", "shared_layer", "digits_net",
)  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What modules leave stays, and is not looked through for what could be freed: that is a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def every_test() -> Iterator[None]:
    """One thread, and few turns of what a job says of latency: how that is measured has tests of its own."""
    import torch

    from autoprune import final_networks

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands that tests interrupt inherit it
    from tests.models import PRUNABLE

    torch.set_num_threads(1)
    assert tuple(PRUNABLE) == NETWORKS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_networks, "measure_latency", partial(final_networks.measure_latency, repeats=10))
        yield


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> "Network":
    """Each of the small networks in turn."""
    from tests.models import PRUNABLE

    return PRUNABLE[request.param]
