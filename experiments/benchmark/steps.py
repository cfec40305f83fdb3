"""Figures 6 and 7: what a step of the layer-wise environment takes, and how that grows with the network."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import QuadraticCost
from autoprune.cost.projection import Projector
from autoprune.env.episodes import Evaluate, SingleEpisode
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import Group, Layer, Member, Structure
from experiments.benchmark.bench import Bench
from experiments.benchmark.row import Goal, Row, amount, ratio

TASK = "fashion_resnet20"
MANY = 64  # episodes at once
UNITS = 64  # of each group of a chain
SHORT, LONG = 20, 200  # groups of the chains
Env = SingleEpisode | LayerwiseVectorEnv


def steps(bench: Bench) -> list[Row]:
    """Figure 6: steps but the last, whose time is the evaluation's."""
    problem = bench.ready(TASK).problem
    structure, rng = problem.structure, bench.rng(6)
    parts: dict[str, Any] = {
        "projector": problem.projector,
        "evaluate": _constant(),
        "features": problem.features,
    }
    single, batch = (
        SingleEpisode(partial(LayerwiseVectorEnv, structure, **parts)),
        LayerwiseVectorEnv(structure, num_envs=MANY, **parts),
    )
    alone, many = _interleaved([single, batch], bench, rng)
    return [
        amount("one step of a single environment", "µs", alone, goal=Goal(30, 8)),
        amount(f"… of one among {MANY}", "µs", [value / MANY for value in many], goal=Goal(2, 0.5)),
    ]


def growth(bench: Bench) -> list[Row]:
    """Figure 7: chains of 3×3 convolutions whose evaluation is a constant."""
    rng = bench.rng(7)
    chains = [_parts(chain(groups)) for groups in (LONG, SHORT)]
    singles = [SingleEpisode(partial(LayerwiseVectorEnv, **parts)) for parts in chains]
    batches = [LayerwiseVectorEnv(num_envs=MANY, **parts) for parts in chains]
    columns = _interleaved([*singles, *batches], bench, rng)
    goal, what = Goal(1.3, 1.05), f"a step of {LONG} groups ÷ a step of {SHORT}"
    return [
        ratio(f"{what}, single", columns[0], columns[1], goal=goal, note="seconds in the file are microseconds"),
        ratio(
            f"{what}, {MANY} at once", columns[2], columns[3], goal=goal, note="seconds in the file are microseconds"
        ),
    ]


def chain(groups: int) -> Structure:
    """Convolutions one behind the other, every one but the last a group."""
    layers = tuple(
        Layer(f"conv{i}", "conv", UNITS, UNITS if i else 3, 9, 16, 1, False, False) for i in range(groups + 1)
    )
    channels, levels = np.arange(UNITS)[:, None], tuple(range(1, UNITS + 1))
    found = (
        Group(f"conv{i}", "channel", UNITS, (_member(i, "out", channels), _member(i + 1, "in", channels)), levels)
        for i in range(groups)
    )
    return Structure(tuple(found), layers)


def chain_macs(groups: int) -> QuadraticCost:
    """The chain's multiply–accumulates: 3×3 kernels at 4×4 positions, from 3 channels to UNITS."""
    outputs, inputs = np.eye(groups + 1, dtype=np.int64), np.eye(groups + 1, k=-1, dtype=np.int64)
    outputs[-1, -1], inputs[0, -1] = UNITS, 3
    return QuadraticCost.bilinear("macs", "MACs", outputs, inputs, np.full(groups + 1, 9 * 16))


def _member(layer: int, axis: Any, positions: Any) -> Member:
    return Member(f"conv{layer}", axis, positions, len(positions))


def _parts(structure: Structure) -> dict[str, Any]:
    cost = chain_macs(len(structure.groups))
    projector = Projector(structure, parse_budget("macs:0.5", {"macs": cost}, structure))
    features = np.zeros((len(structure.groups), len(GROUP_FEATURES)))
    return {"structure": structure, "projector": projector, "evaluate": _constant(), "features": features}


def _constant() -> Evaluate:
    metrics = Metrics(0.5, 0.5, 0.5, 0.5, 1)

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        return [Outcome(plan, metrics, {}, -0.5, -0.5, True, 0.0, whole=True) for plan in plans]

    return evaluate


def _interleaved(envs: Sequence[Env], bench: Bench, rng: np.random.Generator) -> list[list[float]]:
    """Microseconds of a step but the last, [environments][repeats]; the environments take turns."""
    least = bench.size(8000, 40)  # steps of every environment in a repeat
    columns: list[list[float]] = [[] for _ in envs]
    for repeat in range(bench.times(15) + 1):
        for at in sorted(range(len(envs)), reverse=repeat % 2 == 1):
            spent = _step_us(envs[at], least if isinstance(envs[at], SingleEpisode) else least // 4, rng)
            if repeat:  # the first round warms up
                columns[at].append(spent)
    return columns


def _step_us(env: Env, least: int, rng: np.random.Generator) -> float:
    counted = len(env.structure.groups) - 1
    episodes = max(1, round(least / counted))
    shape = env.action_space.shape or ()
    spent = 0.0
    for _ in range(episodes):
        actions = rng.uniform(-1, 1, (counted + 1, *shape)).astype(np.float32)
        env.reset()
        start = time.perf_counter()
        for action in actions[:-1]:
            env.step(action)
        spent += time.perf_counter() - start
        env.step(actions[-1])
    return 1e6 * spent / (episodes * counted)
