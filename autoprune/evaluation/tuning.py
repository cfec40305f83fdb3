"""Settings of the forward pass that follow from measurements: the precision and the batch size of the proxy."""

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.outcome import joined
from autoprune.structure.axes import Kept

PLANS = 8  # that are ranked in both precisions
BLOCKS = 20  # of samples that they are ranked on, at most
AGREES = 0.9  # Kendall's τ from which on bf16 is said to rank as fp32 does
BATCH_SIZES = (50, 100, 250, 500)
NEARLY = 1.1  # times the fastest one's time for a sample


def agreement_of(
    rough: Callable[[], Evaluator], exact: Callable[[], Evaluator], plans: Sequence[Kept], *, batches: int
) -> float:
    """Kendall's τ between the KL of plans by two evaluators, on the first batches; −1 where one cannot judge a plan.

    They are made one after the other: a large model's copies in both precisions need not fit into memory together.

    Args:
        rough: Makes what judges in low precision.
        exact: Makes what judges in fp32.
        plans: Plans to be judged.
        batches: How many batches of samples are compared.
    """
    try:
        return kendall(*(_divergences(made(), plans, batches) for made in (rough, exact)))
    except (FloatingPointError, RuntimeError):  # torch lacks some operators in bf16
        return -1.0


def _divergences(evaluator: Evaluator, plans: Sequence[Kept], batches: int) -> list[float]:
    return [joined(evaluator.judge(plan, 0, batches)).metrics.kl for plan in plans]


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-a of two rankings, in [−1, 1]: pairs in the same order less pairs in opposite order, over all.

    Args:
        a: Numbers of one ranking.
        b: Numbers of the other, in the same order.
    """
    pairs = itertools.combinations(range(len(a)), 2)
    return float(np.mean([np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs]))


def fastest_batch(evaluator: Callable[[int], Evaluator], plan: Kept, *, most: int) -> int:
    """The smallest batch size up to `most` that is nearly as fast as any, per sample.

    Args:
        evaluator: For one batch of that size.
        plan: Units that each group keeps [groups].
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
