"""Settings of the forward pass that follow from measurements: the precision and the batch size of the proxy."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.outcome import joined
from autoprune.statistics import Floats, kendall
from autoprune.structure.axes import Kept

PLANS = 8  # that are ranked in both precisions
BLOCKS = 20  # of samples that they are ranked on, at most
AGREES = 0.9  # Kendall's τ from which on bf16 is said to rank as fp32 does
BATCH_SIZES = (50, 100, 250, 500)
NEARLY = 1.1  # times the fastest one's time for a sample


def agreement_of(
    rough: Callable[[], Evaluator], exact: Callable[[], Evaluator], plans: Sequence[Kept], *, batches: int
) -> float:
    """Kendall's τ between the KL of plans by two evaluators, on the first batches: 0 where one sees no difference.

    It is −1 where one cannot judge a plan.

    They are made one after the other: a large model's copies in both precisions need not fit into memory together.

    Args:
        rough: Makes what judges in low precision.
        exact: Makes what judges in fp32.
        plans: Different ones, at least two.
        batches: How many batches of samples are compared.
    """
    try:
        return float(np.nan_to_num(kendall(*(_divergences(made(), plans, batches) for made in (rough, exact))))[0])
    except (FloatingPointError, RuntimeError):  # torch lacks some operators in bf16
        return -1.0


def _divergences(evaluator: Evaluator, plans: Sequence[Kept], batches: int) -> Floats:
    return np.array([joined(evaluator.judge(plan, 0, batches)).metrics.kl for plan in plans])


def fastest_batch(evaluator: Callable[[int], Evaluator], plan: Kept, *, most: int) -> int:
    """The smallest batch size up to `most` that is nearly as fast as any, per sample.

    Args:
        evaluator: For one batch of that size.
        plan: Units that each group keeps; it is judged on one batch of each size.
        most: The largest that is tried.
    """
    seconds = {}
    for size in sorted({min(size, most) for size in BATCH_SIZES}):
        judged = evaluator(size)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            judged.judge(plan, 0, 1)
            best = min(best, time.perf_counter() - start)
        seconds[size] = best / size
    return next(size for size, spent in seconds.items() if spent <= NEARLY * min(seconds.values()))
