"""The benchmark's figures, in the table's order."""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.benchmark import construction, forward, least_squares, parallel, racing, shares, steps
from experiments.benchmark.bench import Bench
from experiments.benchmark.row import Row


@dataclass(frozen=True, slots=True)
class Figure:
    number: int
    title: str
    measure: Callable[[Bench], list[Row]]


FIGURES = (
    Figure(1, "Evaluating a plan, and a plain forward pass of the same network", forward.against_shrunk),
    Figure(2, "A dense forward pass as AMC makes it, and evaluating a plan", forward.against_dense),
    Figure(3, "A plan's runnable network", construction.networks),
    Figure(4, "Least squares for every width of a layer", least_squares.least_squares),
    Figure(5, "Racing candidates, and judging all in full", racing.racing),
    Figure(6, "A step of the environment", steps.steps),
    Figure(7, "Steps in longer networks", steps.growth),
    Figure(8, "The agent's share of the wall time", shares.agent),
    Figure(9, "Two workers, and one", parallel.workers),
    Figure(10, "Writing down, tracking and showing: their share of the search stage", shares.writing),
)
