"""Figure 9: what a second worker brings."""

from collections.abc import Sequence
from functools import partial

import torch

from autoprune.evaluation.workers import InProcess, Pool, Processes
from autoprune.machine_cache import keep_freed_memory
from autoprune.plan import PruningPlan
from experiments.benchmark.bench import Bench, Ready, random_plans
from experiments.benchmark.row import Goal, Row, ratio, seconds_of

TASK = "fashion_resnet20"


def workers(bench: Bench) -> list[Row]:
    """Evaluations a second by 2 workers ÷ by 1, and ÷ by this process with all its threads; no plan comes twice."""
    ready, size, repeats = bench.ready(TASK), bench.size(16, 4), bench.times(6)
    plans = random_plans(ready, ready.problem.projector, (repeats + 1) * 2 * size, bench.rng(9))
    pools: list[Pool] = [
        *(Processes(ready.evaluator(), workers=n, initialize=partial(keep_freed_memory, True)) for n in (1, 2)),
        InProcess(ready.evaluator()),
    ]
    together: list[list[float]] = [[] for _ in pools]
    singly: list[list[float]] = [[] for _ in pools]
    try:
        for repeat in range(repeats + 1):
            here = plans[repeat * 2 * size : (repeat + 1) * 2 * size]
            for at in sorted(range(len(pools)), reverse=repeat % 2 == 1):
                batch = seconds_of(partial(_evaluate, ready, pools[at], [here[:size]]))
                alone = seconds_of(partial(_evaluate, ready, pools[at], [[plan] for plan in here[size:]]))
                if repeat:  # the first round starts the workers, and warms up
                    together[at].append(batch)
                    singly[at].append(alone)
    finally:
        for pool in pools:
            pool.close()
    goal, threads = Goal(1.8, 1.95, higher=True), torch.get_num_threads()
    inside = f"2 workers ÷ this process with {threads} threads"
    return [
        ratio(f"2 workers ÷ 1, {size} plans at once", together[0], together[1], goal=goal, detail=ready.says()),
        ratio(
            "2 workers ÷ 1, one plan after the other",
            singly[0],
            singly[1],
            goal=goal,
            note="its samples are shared out",
        ),
        ratio(f"{inside}, {size} plans at once", together[2], together[1]),
        ratio(f"{inside}, one plan after the other", singly[2], singly[1]),
    ]


def _evaluate(ready: Ready, pool: Pool, calls: Sequence[Sequence[PruningPlan]]) -> None:
    objective = ready.objective(pool=pool, race=None)
    for plans in calls:
        objective.evaluate(plans, whole=True)
