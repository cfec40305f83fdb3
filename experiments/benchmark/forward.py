"""Figures 1 and 2: what evaluating a plan takes, beside a plain forward pass of the shrunk and of the dense network."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from autoprune.evaluation.candidates import DTYPES
from autoprune.evaluation.evaluator import SlicedEvaluator
from autoprune.machine_cache import keep_freed_memory
from autoprune.plan import PruningPlan
from autoprune.structure.edit import masked, shrink
from autoprune.task.task import outputs_of
from experiments.benchmark.bench import Bench, Ready, random_plans
from experiments.benchmark.row import Goal, Row, interleaved, ratio, seconds_of

TASK = "fashion_resnet20"
BATCHES = (50, 500)  # of the dense forward pass; the faster one counts
Forward = Callable[[], object]


def against_shrunk(bench: Bench) -> list[Row]:
    """Figure 1. Both sides have run on the plan before they are timed; every repeat is another plan."""
    ready = bench.ready(TASK)
    evaluator, inner = ready.evaluator(), bench.size(5, 1)
    plans = random_plans(ready, ready.projector("macs:0.5"), bench.times(15), bench.rng(1))
    ours, torchs, bare, first = (list[float]() for _ in range(4))
    for plan in plans:
        network = _plain(ready, plan)
        batches, judge = _batches(ready), _judging(ready, evaluator, plan)
        sides = [
            judge,
            _passes(network, batches),
            _passes(evaluator._ordered.at(plan.kept), batches),
        ]
        first.append(seconds_of(judge))
        interleaved(sides, repeats=1)
        for column, spent in zip((ours, torchs, bare), interleaved(sides, repeats=inner), strict=True):
            column.append(min(spent))
    return [
        ratio(
            "evaluating a plan ÷ the shrunk network's forward pass",
            ours,
            torchs,
            goal=Goal(1.15, 1.03),
            detail=ready.says(),
        ),
        ratio("the forward pass on views alone ÷ the shrunk network's", bare, torchs),
        ratio("the first evaluation of a plan ÷ the next", first, ours, note="kernels are made for new shapes"),
    ]


def against_dense(bench: Bench) -> list[Row]:
    """Figure 2. Ours are first evaluations of plans not seen before, as in a search."""
    ready = bench.ready(TASK)
    evaluator, rng, repeats = ready.evaluator(), bench.rng(2), bench.times(10)
    rows = []
    with _dense_forward(ready, keep=False) as plain, _dense_forward(ready, keep=True) as kept:
        for density, goal in ((0.5, Goal(4, 8, higher=True)), (0.25, Goal(6, 14, higher=True))):
            plans = random_plans(ready, ready.projector(f"macs:{density}"), repeats + 1, rng)
            columns: dict[str, list[float]] = {"first": [], "next": []}
            for repeat, plan in enumerate(plans):
                judge = _judging(ready, evaluator, plan)
                spent = {"first": seconds_of(judge), "next": seconds_of(judge)}
                spent |= {f"plain {size}": plain(size) for size in BATCHES}
                spent |= {f"kept {size}": kept(size) for size in BATCHES}
                for name, seconds in spent.items() if repeat else ():  # the first round warms up
                    columns.setdefault(name, []).append(seconds)
            rows += _dense_rows(columns, density, goal, detail=ready.says())
    return rows


def _dense_rows(columns: dict[str, list[float]], density: float, goal: Goal, *, detail: Mapping[str, Any]) -> list[Row]:
    def faster(side: str) -> tuple[int, list[float]]:
        size = min(BATCHES, key=lambda size: float(np.median(columns[f"{side} {size}"])))
        return size, columns[f"{side} {size}"]

    (size, dense), (kept_size, kept) = faster("plain"), faster("kept")
    at = f"the masked dense network's forward pass ÷ ours, at {density:.0%} of the MACs"
    return [
        ratio(at, dense, columns["first"], goal=goal, note=f"{size} samples at a time", detail=detail),
        ratio("… with freed memory kept for it as well", kept, columns["first"], note=f"{kept_size} samples at a time"),
        ratio("… ÷ our second evaluation of the same plan", dense, columns["next"]),
    ]


def _judging(ready: Ready, evaluator: SlicedEvaluator, plan: PruningPlan) -> Forward:
    return lambda: evaluator.judge(plan.kept, 0, ready.batches)


def _plain(ready: Ready, plan: PruningPlan) -> nn.Module:
    """The shrunk network as PyTorch runs it: channels_last, in the evaluator's precision, BatchNorm by the batch."""
    known = ready.problem
    network = shrink(known.task.model, known.structure, plan, known.candidates.ranking).eval().requires_grad_(False)
    network.to(DTYPES[known.measured["precision"]])
    cast(Any, network).to(memory_format=torch.channels_last)  # nn.Module.to's annotations lack it
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.float()  # as autoprune keeps it
            if known.candidates.repair.batch_norm:
                layer.train()
                layer.track_running_stats, layer.running_mean, layer.running_var = (
                    False,
                    None,
                    None,
                )  # nothing to update
    return network


def _batches(ready: Ready) -> list[Tensor]:
    known = ready.problem.measured
    inputs = ready.problem.candidates.proxy.inputs.to(DTYPES[known["precision"]])
    return [batch.contiguous(memory_format=torch.channels_last) for batch in inputs.split(known["batch_size"])]


def _passes(network: nn.Module, batches: list[Tensor]) -> Forward:
    return lambda: [outputs_of(network, batch) for batch in batches]


@contextmanager
def _dense_forward(ready: Ready, *, keep: bool) -> Iterator[Callable[[int], float]]:
    """batch size → seconds, in a process of its own, whose allocator is glibc's own unless `keep`."""
    known, role = ready.problem, ready.problem.candidates.proxy
    plan = known.structure.plan(known.projector.project(np.ones(len(known.structure.groups))))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with masked(known.task.model, known.structure, plan, known.candidates.ranking) as network:
        arguments = (theirs, network, role.inputs, role.targets, torch.get_num_threads(), keep)
        process = context.Process(target=_amc_validation, args=arguments, daemon=True)
        process.start()
        ours.recv()

    def ask(size: int) -> float:
        ours.send(size)
        return float(ours.recv())

    try:
        yield ask
    finally:
        ours.send(None)
        process.join(timeout=10)


def _amc_validation(
    link: "Connection[float | None, int | None]",
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    threads: int,
    keep: bool,
) -> None:
    """AMC's reward (arXiv 1802.03494): zeroed weights at full cost, a DataLoader that collates samples, fp32, NCHW."""
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory(True)
    network = _copied(network)
    dataset = TensorDataset(inputs.clone(), targets.clone())
    link.send(None)
    while (size := link.recv()) is not None:
        start = time.perf_counter()
        right, lost = 0.0, 0.0
        with torch.no_grad():
            for batch, expected in DataLoader(dataset, batch_size=size):
                outputs = network(batch)
                lost += float(F.cross_entropy(outputs, expected))
                right += float((outputs.argmax(dim=1) == expected).sum())
        link.send(time.perf_counter() - start)


def _copied(network: nn.Module) -> nn.Module:
    """In this process's own memory: what was sent lies in shared memory."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network.eval()
