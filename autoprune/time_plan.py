"""What a run will take, stage by stage, before it is begun: from what its preparation and its rehearsal took."""

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.evaluation.curves import curve_plans
from autoprune.export.latency_measurement import LIMIT_S, REPEATS, WARM_UP
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem
from autoprune.rehearsal import Rehearsal
from autoprune.report.wording import duration

Between = tuple[float, float]  # at least, at most
COMPANY = 8  # plans that a search asks for at a time, where races take most out


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Seconds that each stage takes, at least and at most; what an agent itself takes is not in it."""

    stages: Mapping[str, Between]
    """In their order, preparation first."""
    evaluations: int
    """That the search's part is for."""

    @property
    def total(self) -> Between:
        """Of all stages."""
        least, most = zip(*self.stages.values(), strict=True)
        return sum(least), sum(most)

    def describe(self) -> str:
        """Returns the plan as a short block: a line for each stage that takes any time, and their sum."""
        notes = {"prepare": "taken", "search": f"{self.evaluations} evaluations at most, and what the agent takes"}
        rows = {**{name: each for name, each in self.stages.items() if each[1] > 0}, "in all": self.total}
        lines = [
            f"  {name:<10} {_between(*each)}{f' ({notes[name]})' if name in notes else ''}"
            for name, each in rows.items()
        ]
        return "\n".join(["plan of time:", *lines])

    def check(self, limit_s: float | None) -> None:
        """Raises ValueError where the run cannot end within so many seconds; None is no limit."""
        if limit_s is None or self.total[0] <= limit_s:
            return
        search, rest = self.stages["search"][0], self.total[0] - self.stages["search"][0]
        fits = int((limit_s - rest) * self.evaluations / search) if search else 0
        way = f"set evaluations={fits} at most"
        if fits < 1:
            way = f"all but the search takes {duration(rest)}: set baselines=[uniform], a shorter recovery"
        raise ValueError(
            f"evaluations={self.evaluations} cannot end within time_limit_s={limit_s:g}: the run takes at least "
            f"{duration(self.total[0])}; {way}, or a longer limit"
        )


def plan_time(problem: Problem, rehearsal: Rehearsal, *, evaluations: int, baselines: tuple[str, ...]) -> TimePlan:
    """The plan of a run's time. Two batches of the uniform plan and of the dense network are judged for it.

    Args:
        problem: What is searched.
        rehearsal: What it took.
        evaluations: Plans that the search may have judged.
        baselines: Which of "uniform" and "sensitivity" the run is compared with.
    """
    objective, structure = problem.objective.uncharged, problem.structure
    workers = max(1, objective.pool.size)
    dense = objective.seconds_per_plan(structure.dense) or 0.0
    pruned = objective.seconds_per_plan(uniform_plan(structure, problem.projector)) or dense
    raced = first = 1.0
    if objective.race is not None and objective.divisible:
        raced = objective.race.least_share(objective.batches, plans=COMPANY)
        first = next(objective.race.stages(objective.batches)) / objective.batches
    curves = sum(map(len, curve_plans(structure).values())) if "sensitivity" in baselines else 0
    others, networks = len(baselines) * pruned, len(baselines) + 1
    step, judging, export = (_range(each) for each in (rehearsal.step_s, rehearsal.judging_s, rehearsal.export_s))
    data = problem.task.data
    samples = (len(data.test) + len(problem.held_out)) * (2 * networks + 1)
    turns = (WARM_UP + REPEATS) * 2 * (networks + 1)  # of one sample, in two runtimes
    return TimePlan(
        {
            "prepare": (taken := sum(problem.preparation_seconds.values()), taken),
            "search": (evaluations * pruned * raced / workers, evaluations * pruned / workers),
            "baselines": ((curves * dense * first + others) / workers, (curves * dense + others) / workers),
            "recover": (networks * rehearsal.steps * step[0], networks * rehearsal.steps * step[1]),
            "export": export,
            "benchmark": tuple(  # type: ignore[dict-item]
                samples * each + min(LIMIT_S, turns * each) + networks * written
                for each, written in zip(judging, export, strict=True)
            ),
        },
        evaluations,
    )


def _range(seconds: Mapping[str, float]) -> Between:
    return min(seconds.values()), max(seconds.values())


def _between(least: float, most: float) -> str:
    texts = duration(least), duration(most)
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"
