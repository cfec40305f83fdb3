"""The whole study on one page: plans, what proxies say of them, what recovery makes of them, how well the two agree."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from torch import nn

from autoprune.cost.cost_units import written
from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.judge import Judge, Score
from autoprune.evaluation.short_training import ShortTraining
from autoprune.fidelity.plans import sampled_plans
from autoprune.fidelity.proxies import PROXIES, SINGLES, Evaluate, judge_missing, single_plans
from autoprune.fidelity.summary import PLANS, STUDY, summarise
from autoprune.fidelity.truth import TRUTH, RecoveryTrial, measure_truth, trials
from autoprune.plan import PruningPlan
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.problem.problem import Problem
from autoprune.records import describe_budget
from autoprune.recover.recovery import Recovery
from autoprune.repair.repair import Repair
from autoprune.report.progress import StageProgress
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng, torch_generator
from autoprune.task.task import Role, Task


class Ready(Protocol):
    """Makes the study's task ready."""

    def __call__(self, budget: str | None, repair: Repair, training: ShortTraining | None = None) -> Problem:
        """budget: None for the task's own. training: what happens to each network before it is judged."""
        ...


Recover = Callable[[int], Recovery]  # steps → the recovery of so many


@dataclass(frozen=True, slots=True)
class Level:
    """So many plans that fill one budget."""

    budget: str | None
    """None: for the first level what the task suggests, for the others half of the first level's budget."""
    plans: int
    """How many plans fill the budget."""
    repeated: int
    """How many of them are recovered from every seed; the others are from one."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Goes on where a study in the same folder stopped, and ends with `fidelity.json`."""

    task: Task
    """Whose plans are recovered."""
    ready: Ready
    """Makes the task ready under a budget, with a repair."""
    repairs: Mapping[str, Repair]
    """Each judges every plan, and every score follows from what it measured."""
    scores: Mapping[str, Score]
    """Name → what is made of metrics, higher is better."""
    trained: Mapping[str, ShortTraining]
    """Trainings that come before judging: they cost too much to be recommended, and are shown beside the others."""
    default: tuple[str, str]
    """The repair and the score that searches use now."""
    start: str
    """The repair of the networks that are recovered."""
    recover: Recover
    """Trains a plan's network for so many steps."""
    levels: Sequence[Level]
    """The first is the one that the recommendation is made for."""
    lengths: Sequence[int]
    """Steps of recovery, 0 is none; the longest is the truth."""
    seeds: int
    """From how many seeds some plans are recovered."""
    seed: int
    """Of the plans that are drawn."""
    conditions: Mapping[str, Any]
    """What must be equal for going on, as JSON."""
    run: RunFolder
    """Where everything is written."""

    def execute(self) -> dict[str, Any]:
        """What `fidelity.json` holds. Proxies come first: an interrupted study has them for what was recovered."""
        levels = self._levels()
        self._begin(levels)
        plans = {problem.projector.budget.text: self._plans(level, problem) for level, problem in levels}
        for budget, of_budget in plans.items():
            self._judge_proxies(budget, of_budget)
        main = levels[0][1]
        singles = single_plans(main.structure, plans[main.projector.budget.text])
        keyed = [({"kept": list(plan.kept)}, plan) for plan in singles]
        self._judge("one group at a time", SINGLES, keyed, lambda: main.objective.uncharged.evaluate)
        for level, problem in levels:
            self._measure_truth(level, problem, plans[problem.projector.budget.text])
        return summarise(self.run, scores=self.scores)

    def _plans(self, level: Level, problem: Problem) -> list[PruningPlan]:
        """The plans that stand in plans.json, else new ones, which then stand there."""
        stored = self.run.read_json(PLANS) if self.run.has(PLANS) else {}
        budget, structure = problem.projector.budget, problem.structure
        if budget.text not in stored:
            curves = single_group_curves(structure, problem.objective.uncharged.evaluate)
            good = sensitivity_plan(structure, problem.projector, curves)
            rng = numpy_rng(self.seed, "fidelity")
            plans = sampled_plans(structure, problem.projector, good, plans=level.plans, rng=rng)
            self.run.write_json(PLANS, {**stored, budget.text: [plan.kept for plan in plans]})
            return plans
        if len(stored[budget.text]) != level.plans:
            raise ValueError(
                f"{PLANS} holds {len(stored[budget.text])} plans for {budget.text}, but {level.plans} are asked for; "
                "ask for as many, or choose another folder"
            )
        plans = [_fitting(kept, problem) for kept in stored[budget.text]]
        self._check_truth(plans, problem)
        return plans

    def _judge_proxies(self, budget: str, plans: Sequence[PruningPlan]) -> None:
        """What every repair says of every plan, and what is left after each short training."""
        proxies: dict[str, tuple[str, ShortTraining | None]] = {name: (name, None) for name in self.repairs}
        proxies |= {name: (self.default[0], training) for name, training in self.trained.items()}
        for name, (by, training) in proxies.items():
            keyed = [({"budget": budget, "proxy": name, "plan": i}, plan) for i, plan in enumerate(plans)]
            self._judge(f"{name}, {budget}", PROXIES, keyed, partial(self._evaluate, budget, by, training))

    def _judge(
        self, phase: str, file: str, plans: list[tuple[dict[str, Any], PruningPlan]], evaluate: Callable[[], Evaluate]
    ) -> None:
        with StageProgress() as progress:
            on_plan = partial(progress.update, phase=phase, note="")
            judge_missing(self.run, file, plans, evaluate=evaluate, on_plan=lambda done, of: on_plan(done, of=of))

    def _measure_truth(self, level: Level, problem: Problem, plans: Sequence[PruningPlan]) -> None:
        """What every trial's recovery gives: the long part."""
        budget, task = problem.projector.budget.text, self.task
        started = self.ready(budget, self.repairs[self.start])
        wanted = list(trials(budget, plans=level.plans, steps=self.lengths, seeds=self.seeds, repeated=level.repeated))

        def recovered(plan: PruningPlan, steps: int, seed: int) -> nn.Module:
            network, generator = started.pruned(plan), torch_generator(seed, "recover")
            return self.recover(steps)(network, task, teacher=task.model, generator=generator) if steps else network

        def on_trial(number: int, trial: RecoveryTrial) -> None:
            note = f"plan {trial.plan}, {trial.steps} steps, seed {trial.seed}"
            progress.update(number, of=len(wanted), phase=f"recover, {budget}", note=note)

        judges = {role: Judge(task, data) for role, data in self._roles(problem).items()}
        with StageProgress() as progress:
            measure_truth(self.run, wanted, plans, recovered=recovered, judges=judges, on_trial=on_trial)

    def _roles(self, problem: Problem) -> dict[str, Role]:
        """What recovered networks are judged on."""
        return {"held_out": problem.held_out, "test": self.task.data.test}

    def _levels(self) -> list[tuple[Level, Problem]]:
        repair, score = self.default
        repairs, scores = ("repair", self.repairs), ("score", self.scores)
        for name, (kind, compared) in ((repair, repairs), (score, scores), (self.start, repairs)):
            if name not in compared:
                raise ValueError(f"the {kind} {name!r} must be among the {kind}s to compare, {list(compared)}")
        if doubled := sorted(self.repairs.keys() & self.trained.keys()):
            raise ValueError(f"{doubled} name both a repair and a training; rename the latter")
        first = self.ready(self.levels[0].budget, self.repairs[repair])
        others = [(level, self.ready(level.budget or halved(first), self.repairs[repair])) for level in self.levels[1:]]
        return [(self.levels[0], first), *others]

    def _begin(self, levels: Sequence[tuple[Level, Problem]]) -> None:
        """Writes study.json. Raises ValueError where another study stands in the folder."""
        conditions = json.loads(json.dumps(self.conditions))
        before = self.run.read_json(STUDY)["conditions"] if self.run.has(STUDY) else conditions
        if differing := sorted(k for k in before.keys() | conditions.keys() if before.get(k) != conditions.get(k)):
            raise ValueError(f"the study in {self.run.path} was made with other {differing}; choose another folder")
        self.run.write_json(STUDY, {**self._described(levels), "conditions": conditions})

    def _described(self, levels: Sequence[tuple[Level, Problem]]) -> dict[str, Any]:
        task, problem = self.task, levels[0][1]
        roles = self._roles(problem)
        sizes = {name: len(role) for name, role in roles.items()}
        return {
            "task": task.name,
            "units": problem.structure.units,
            "start": self.start,
            "default": dict(zip(("repair", "score"), self.default, strict=True)),
            "repairs": list(self.repairs),
            "lengths": list(self.lengths),
            "seeds": self.seeds,
            "samples": {"proxy": len(task.data.search) - len(problem.held_out), **sizes},
            "dense": {name: asdict(Judge(task, role)(task.model)) for name, role in roles.items()},
            "levels": [
                {**asdict(level), "budget": ready.projector.budget.text, "limit": describe_budget(ready)}
                for level, ready in levels
            ],
        }

    def _check_truth(self, plans: Sequence[PruningPlan], problem: Problem) -> None:
        budget, held_out = problem.projector.budget.text, len(problem.held_out)
        for record in self.run.read_lines(TRUTH):
            if record["budget"] != budget:
                continue
            number, samples = record["plan"], record["held_out"]["samples"]
            if number >= len(plans) or list(plans[number].kept) != record["kept"]:
                raise ValueError(
                    f"{TRUTH} and {PLANS} in {self.run.path} disagree on plan {number} of {budget}; "
                    "they are of different studies, choose another folder"
                )
            if samples != held_out:
                raise ValueError(
                    f"{TRUTH} in {self.run.path} was measured on {samples} held-out samples, now there are {held_out}; "
                    "choose another folder, or evaluation.proxy_samples as it was"
                )

    def _evaluate(self, budget: str, repair: str, training: ShortTraining | None) -> Evaluate:
        return self.ready(budget, self.repairs[repair], training).objective.uncharged.evaluate


def halved(problem: Problem) -> str:
    """Half the budget, as a fraction of dense: macs:0.35 → macs:0.175; of several, half of each."""
    bounds = problem.projector.budget.bounds
    return ",".join(f"{bound.cost.name}:{min(1.0, round(bound.relative / 2, 3)):g}" for bound in bounds)


def _fitting(kept: Sequence[int], problem: Problem) -> PruningPlan:
    """The plan of plans.json. Raises ValueError where it is not of this network, or exceeds the budget."""
    plan, budget = problem.structure.plan(kept), problem.projector.budget  # type: ignore[arg-type]
    cost = float(budget.cost([plan.kept])[0])  # type: ignore[arg-type]
    if cost > budget.limit:
        raise ValueError(f"a plan in {PLANS} costs {written(cost)} {budget.cost.unit}, more than {budget.text} allows")
    return plan
