"""What is compared with what: cells of a task and a budget, agents, seeds and evaluations."""

from dataclasses import dataclass

DETERMINISTIC = ("uniform", "erk", "global", "lamp", "greedy", "sensitivity")
QUICK = (*DETERMINISTIC, "random", "random_around", "evolution", "legr", "annealing", "cmaes")
# Searches that take seconds of their own: they train networks of a few thousand weights, refit a model of all trials at
# every one, or solve a dynamic program for every plan.
COSTLY = (
    "advised", "ppo", "edit_ppo", "a2c", "recurrent_ppo", "ddpg", "td3", "sac", "tqc", "crossq", "dqn", "amc", "tpe",
    "spdy",
)  # fmt: skip
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
class Stage:
    """seeds: of quick searches and of costly ones. recovers: the cells in which plans are trained again."""

    cells: tuple[Cell, ...]
    agents: tuple[str, ...]
    evaluations: int
    seeds: tuple[int, int]
    block: int
    recovers: tuple[Cell, ...] = ()
    recovered: int = 0

    def jobs(self, seeds: int | None = None) -> list[Job]:
        """First seeds of everything first, so that what is cut off has all agents. seeds: so many and no more."""
        found = []
        for first in range(0, min(max(self.seeds), seeds or max(self.seeds)), self.block):
            for cell in self.cells:
                for agent in self.agents:
                    once = agent in DETERMINISTIC or agent in RIVALS
                    most = min(1 if once else self.seeds[agent in COSTLY], seeds or max(self.seeds))
                    these = tuple(range(first, min(first + self.block, most)))
                    recovered = self.recovered if cell in self.recovers else 0
                    if these:
                        found.append(Job(cell, agent, these, self.evaluations, recovered))
        return found


LIVE = tuple(
    Cell(task, budget)
    for budget in ("macs:0.3", "macs:0.5")
    for task in ("fashion_resnet20", "fashion_plain20", "fashion_mobilenet")
)
STAGES = {
    "tables": Stage(
        cells=(
            Cell("table_residual", "macs:0.5"),
            Cell("table_plain", "macs:0.5"),
            Cell("table_residual", "macs:0.15"),
        ),
        agents=(*QUICK, *COSTLY),
        evaluations=100,
        seeds=(100, 5),
        block=100,
    ),
    "live": Stage(
        cells=LIVE,
        agents=("uniform", "sensitivity", *RIVALS, "advised", "evolution", "random_around", "random", "ppo", "amc"),
        evaluations=300,
        seeds=(10, 10),
        block=5,
        recovers=tuple(cell for cell in LIVE if cell.budget == "macs:0.3"),
        recovered=5,
    ),
}
QUICKLY = {
    "tables": Stage((Cell("table_plain", "macs:0.5"),), ("uniform", "evolution", "advised"), 20, (2, 2), 2),
    "live": Stage(
        (Cell("digits", "macs:0.5"),), ("uniform", *RIVALS, "random"), 10, (2, 2), 2, (Cell("digits", "macs:0.5"),), 1
    ),
}
