"""What is compared with what: cells of a task and a budget, agents, seeds and evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass

RULES = (
    "uniform",
    "erk",
    "global",
    "lamp",
    "greedy",
    "sensitivity",
    "closed_form",
)  # whose seeds change little or nothing
QUICK = ("random", "random_around", "evolution", "legr", "annealing", "cmaes")
# Searches that take seconds of their own: they train networks of a few thousand weights, refit a model of all trials at
# every one, or solve a dynamic program for every plan.
COSTLY = (
    "model_based", "bayesian", "critic_guided", "ppo", "edit_ppo", "a2c", "recurrent_ppo", "ddpg", "td3", "sac", "tqc",
    "crossq", "dqn", "amc", "tpe", "spdy",
)  # fmt: skip
COSTLIEST = ("sac", "tqc", "crossq")  # of which fewer seeds let the tabular comparison take ten minutes
RIVALS = ("torch_pruning", "torch_pruning_widths")


@dataclass(frozen=True, slots=True)
class Cell:
    task: str
    budget: str


@dataclass(frozen=True, slots=True)
class Job:
    """An agent in a cell, from several seeds. recovered: how many of them are trained again, from seed 0 on."""

    cell: Cell
    agent: str
    seeds: tuple[int, ...]
    evaluations: int
    recovered: int = 0

    @property
    def name(self) -> str:
        """Of its file, on which `recovered` is no part: those are kept on their own."""
        seeds = f"{self.seeds[0]}-{self.seeds[-1]}"
        return f"{self.cell.task}_{self.cell.budget.replace(':', '_')}_{self.agent}_{self.evaluations}_{seeds}"


@dataclass(frozen=True, slots=True)
class Part:
    """Cells with the same agents. seeds: of each agent. recovers: whose plans are trained again, from so many seeds."""

    cells: tuple[Cell, ...]
    seeds: Mapping[str, int]
    recovers: tuple[str, ...] = ()
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """block: seeds that are one job."""

    parts: tuple[Part, ...]
    evaluations: int
    block: int

    def jobs(self, seeds: int | None = None) -> list[Job]:
        """First seeds of everything first, so that what is cut off has all agents. seeds: so many and no more."""
        found = []
        for first in range(0, max(most for part in self.parts for most in part.seeds.values()), self.block):
            for part in self.parts:
                for cell in part.cells:
                    for agent, most in part.seeds.items():
                        last = min(first + self.block, most, seeds or most)
                        recovered = part.recovered if agent in part.recovers else 0
                        if first < last:
                            found.append(Job(cell, agent, tuple(range(first, last)), self.evaluations, recovered))
        return found


def _cells(*tasks: str, budget: str) -> tuple[Cell, ...]:
    return tuple(Cell(task, budget) for task in tasks)


SEEDLESS = ("uniform", "sensitivity", *RIVALS)  # only what is trained again depends on a seed
RECOVERED = ("uniform", "torch_pruning", "sensitivity", "model_based")
FASHION = ("fashion_resnet20", "fashion_plain20", "fashion_mobilenet")
STAGES = {
    "tables": Stage(
        parts=(
            Part(
                (*_cells("table_residual", "table_plain", budget="macs:0.5"), Cell("table_residual", "macs:0.15")),
                dict.fromkeys(QUICK, 100) | dict.fromkeys((*RULES, *COSTLY), 5) | dict.fromkeys(COSTLIEST, 3),
            ),
        ),
        evaluations=100,
        block=100,
    ),
    "live": Stage(
        parts=(
            Part(
                _cells(*FASHION, budget="macs:0.3"),
                dict.fromkeys(("critic_guided", "evolution", "random_around"), 10)
                | dict.fromkeys((*SEEDLESS, "random", "ppo", "amc"), 5),
                recovers=(*SEEDLESS, "critic_guided", "evolution"),
                recovered=5,
            ),
            Part(
                _cells(*FASHION, budget="macs:0.5"),
                dict.fromkeys((*SEEDLESS, "critic_guided", "evolution"), 3),
            ),
        ),
        evaluations=300,
        block=5,
    ),
    "recovered": Stage(
        parts=(
            Part(
                _cells(*FASHION, budget="macs:0.15"),
                dict.fromkeys(RECOVERED, 5),
                recovers=RECOVERED,
                recovered=5,
            ),
        ),
        evaluations=100,
        block=1,
    ),
}
QUICKLY = {
    "tables": Stage(
        (Part(_cells("table_plain", budget="macs:0.5"), {"uniform": 1, "evolution": 1, "critic_guided": 1}),), 20, 2
    ),
    "live": Stage(
        (
            Part(
                _cells("digits", budget="macs:0.5"),
                {"uniform": 1, "random": 2} | dict.fromkeys(RIVALS, 1),
                ("uniform", "random", *RIVALS),
                1,
            ),
        ),
        10,
        2,
    ),
}
