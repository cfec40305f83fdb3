"""A policy that is used again: on any network where it is transferable, else on the one that it was trained on."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn

from autoprune.agent.bundle import load_policy, load_training
from autoprune.agent.training_record import TrainingRecord
from autoprune.cost.budget import Budget
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.evaluation.outcome import Outcome
from autoprune.exchange.policies import fetch_policy
from autoprune.plan import PruningPlan
from autoprune.prior.starts import prior_of
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.ranges import check_value, checked_call
from autoprune.runs import RunFolder, resume_command
from autoprune.search.policy_trials import own_evaluations, play
from autoprune.search.zero_shot import proposed, transferred_to
from autoprune.task.task import Task
from autoprune.transfer.studied_network import StudiedNetwork

log = logging.getLogger(__name__)
POLICY, SENSITIVITY, UNIFORM = "policy", "sensitivity", "uniform"
CANDIDATES = 8
BUDGET_FEATURE = "budget"  # of observations: the limit over the dense cost
ROUNDED = 1e-3  # of dense, by which one budget that is written in two ways may differ


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """The plan that was chosen on held-out search data, of the policy's best, the sensitivity and the uniform one."""

    plan: PruningPlan
    """The chosen one."""
    chosen: str
    """Whose it is: policy, sensitivity or uniform."""
    outcomes: Mapping[str, Outcome]
    """Of all three, on the proxy samples."""
    scores: Mapping[str, float]
    """Of all three on the held-out samples, by which it was chosen; higher is better."""
    evaluations: int
    """Plans that were judged, those of the single-group curves included."""
    seconds: float
    """What it took the policy to propose plans, without the curves and without judging what it proposed."""
    problem: Problem
    """What was planned for."""

    @classmethod
    def of(cls, problem: Problem, outcomes: Mapping[str, Outcome], *, evaluations: int, seconds: float) -> Self:
        """Chooses among outcomes on held-out data; the first one where there is a tie.

        Args:
            problem: What is to be solved: the task, its groups, costs, budget and objective.
            outcomes: Whose plan → its outcome on the proxy samples; of equal ones the first is taken.
            evaluations: How many plans were judged, those of single-group curves included.
            seconds: What it took the policy to propose plans, without judging them.
        """
        scores = problem.held_out_scores({name: problem.pruned(outcome.plan) for name, outcome in outcomes.items()})
        chosen = max(scores, key=lambda name: scores[name])
        return cls(outcomes[chosen].plan, chosen, outcomes, scores, evaluations, seconds, problem)

    def network(self) -> nn.Module:
        """Returns the smaller network, repaired from the calibration data; no gradient step was made."""
        return self.problem.pruned(self.plan)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was trained by `autoprune train` on many networks, or by a search on one.

    >>> from autoprune import Policy  # doctest: +SKIP
    >>> Policy.load("shipped").plan("digits", "macs:0.4").chosen  # doctest: +SKIP
    'policy'
    """

    folder: Path
    """Of the bundle."""
    training: TrainingRecord
    """What it was trained on."""

    @classmethod
    def load(cls, source: str | Path = "shipped") -> Self:
        """Returns a saved policy; nothing in it is executed.

        Args:
            source: A run's folder or its policy's, `shipped`, or as exchange.policies.fetch_policy takes it.

        Raises:
            ValueError: There is none, or it was damaged, edited or made by another version.
        """
        check_value(source, str | Path, "the policy")
        inside = Path(source) / "policy"  # of a run
        if (Path(source) / "run.json").is_file() and not (inside / "policy.json").is_file():
            agent = RunFolder.open(Path(source)).read_json("run.json").get("agent")
            raise ValueError(
                f"the run {source} has no policy: agent={agent} is a search that learns none, or the run did not come "
                f"to its end (`{resume_command(Path(source))}` goes on)"
            )
        folder = fetch_policy(str(inside if (inside / "policy.json").is_file() else source))
        load_policy(folder)
        return cls(folder, load_training(folder))

    def plan(
        self, task: str | Task | Problem, budget: str | None = None, *, candidates: int = CANDIDATES, seed: int = 0
    ) -> Planned:
        """Returns a plan for a network; nothing is learned.

        Args:
            task: One of one's own, the name of one that comes along, or a Problem with other settings than the defaults
                (such as those that the policy was trained with).
            budget: `cost:amount`; None for the task's. A Problem has its own.
            candidates: Plans of a transferable policy's that are judged, at least 1; another policy has one plan.
            seed: Draws a transferable policy's proposals.

        Raises:
            ValueError: The policy is not transferable and the network is another one, or it was not trained for such a
                budget: a transferable policy outside its range, another where it does not see the budget.
        """
        if isinstance(task, Problem) and budget is not None:
            raise ValueError(f"a Problem has its budget already; got {budget!r} beside it")
        problem = task if isinstance(task, Problem) else Problem.prepare(task, ProblemSpec(budget=budget))
        try:
            if self.training.environment is not None:
                return self._own_plan(problem, self._environment(self.training.environment))
            bound = problem.projector.budget
            transferred_to(str(self.folder), groups=len(problem.structure.groups), budget=bound)  # before it costs
            return self.plan_for(StudiedNetwork.study(problem), bound, candidates=candidates, seed=seed)
        finally:
            if problem is not task:
                problem.close()

    def plan_for(
        self, network: StudiedNetwork, budget: Budget, *, candidates: int = CANDIDATES, seed: int = 0
    ) -> Planned:
        """Returns the same for a network whose single-group curves are there, by a transferable policy.

        Args:
            network: A network with its single-group curves.
            budget: At most what the policy was trained for.
            candidates: How many plans of the policy are judged, at least 1.
            seed: Draws the proposals, at least 0.
        """
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1 plan of the policy's, got {candidates}")
        problem = network.problem.under(budget)
        transferable = transferred_to(str(self.folder), groups=len(problem.structure.groups), budget=budget)
        task, (prior, uniform) = network.under(budget, max_log_correction=transferable.max_log_correction)
        start, rng = time.perf_counter(), np.random.default_rng(seed)
        plans = proposed(transferable.policy, task, [prior, uniform], count=candidates, rng=rng)
        seconds = time.perf_counter() - start
        proposals = task.evaluate(plans)
        outcomes = {SENSITIVITY: prior, UNIFORM: uniform}
        if able := [outcome for outcome in proposals if outcome.failed is None]:
            outcomes = {POLICY: max(able, key=lambda outcome: outcome.reward), **outcomes}
        evaluations = network.evaluations + 2 + len(proposals)
        return Planned.of(problem, outcomes, evaluations=evaluations, seconds=seconds)

    def _own_plan(self, problem: Problem, env: EnvSpec) -> Planned:
        """The plan that a policy for one network makes itself."""
        self._check_network(problem)
        before = problem.objective.spent  # of plans that were made for the same problem earlier
        prior = env.prior_of(problem)
        factory = EnvFactory(problem, env, own_evaluations(problem, projected=True), prior)
        alone, policy = factory.one(), load_policy(self.folder)
        for what in ("observation_space", "action_space"):
            saved, here = getattr(policy.network, what), getattr(alone, what)
            if (type(saved), saved.shape, getattr(saved, "n", 0)) != (type(here), here.shape, getattr(here, "n", 0)):
                raise ValueError(
                    f"the policy in {self.folder} has the {what.replace('_', ' ')} {saved}, and here it is {here}: it "
                    "was trained on other observations or actions than this version has; train it again"
                )
        start, judging = time.perf_counter(), problem.objective.seconds
        own = play(alone, policy)
        seconds = time.perf_counter() - start - (problem.objective.seconds - judging)
        sensitivity = (
            prior if prior is not None and env.prior == SENSITIVITY else prior_of(problem, start="sensitivity")
        )
        uniform = prior_of(problem, start="uniform")
        outcomes = {POLICY: own, SENSITIVITY: sensitivity.outcome, UNIFORM: uniform.outcome}
        return Planned.of(problem, outcomes, evaluations=problem.objective.spent - before, seconds=seconds)

    def _environment(self, settings: Mapping[str, Any]) -> EnvSpec:
        """What the policy was trained in."""
        try:
            return checked_call(EnvSpec, settings, owner="an environment")
        except ValueError as error:
            raise ValueError(f"the policy in {self.folder} was trained in no environment of ours: {error}") from error

    def _check_network(self, problem: Problem) -> None:
        """Raises ValueError where a policy for one network meets another, or a budget that it cannot know of."""
        names, units, trained = problem.structure.names, problem.structure.units.tolist(), self.training
        before = dict(zip(trained.groups, trained.units or units, strict=False))
        if tuple(trained.groups) != tuple(names) or (trained.units and list(trained.units) != units):
            raise ValueError(
                f"the policy in {self.folder} was trained on {', '.join(trained.tasks)}, whose groups "
                f"are {before if trained.units else list(trained.groups)}, and fits no other network; "
                f"{problem.task.name} has {dict(zip(names, units, strict=True))}. Use a transferable policy, such as "
                "policy=shipped, search with agent=transferable, or, where it is the same network under other "
                "settings, plan for a Problem with those"
            )
        self._check_budget(problem.projector.budget)

    def _check_budget(self, budget: Budget) -> None:
        """Raises ValueError where the policy does not see the budget, and it is another; warns where it is a guess."""
        trained = self.training
        ranges = ", ".join(trained.budget_texts.values())
        if unknown := [bound.cost.name for bound in budget.bounds if bound.cost.name not in trained.budgets]:
            log.warning(
                "the policy was trained under %s, and does not see which cost a budget bounds: what it proposes under "
                "%s (%s) is a guess",
                trained.budget,
                budget.text,
                ", ".join(unknown),
            )
        if not (outside := [bound for bound in budget.bounds if not _practised(bound, trained.budgets)]):
            return
        if BUDGET_FEATURE not in trained.features:
            raise ValueError(
                f"the policy in {self.folder} does not see the budget, which is not among its observations, and was "
                f"trained under {ranges or trained.budget}; {budget.text!r} is another: ask for that one, or search "
                "again under this one"
            )
        if len(unknown) < len(outside):
            log.warning(
                "the policy was trained under %s and sees the budget, but %s was never practised: train it under both "
                "with agent=model_based and agent.budgets=[%s]",
                ranges,
                budget.text,
                ",".join(bound.text for bound in outside),
            )


def _practised(bound: Budget, ranges: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a budget lies in the range that was trained under."""
    low, high = ranges.get(bound.cost.name, (np.inf, -np.inf))
    return bool(low - ROUNDED <= bound.relative <= high + ROUNDED)
