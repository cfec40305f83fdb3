"""The objective: plan → outcome. Everything that searches calls this and nothing else.

Who builds and judges a plan's network is the pool: it asks the evaluator (evaluator.py), which binds the plan's slices
of one ordered network (ordered.py).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.callers_modes import plain_torch
from autoprune.cost.budget import Budget
from autoprune.cost.model import CostModel
from autoprune.evaluation.judge import Score
from autoprune.evaluation.outcome import Judged, Metrics, Outcome, joined
from autoprune.evaluation.race import Batches, Race, Rewards, Stage, is_precise, runs_of
from autoprune.evaluation.reward import Reward
from autoprune.evaluation.store import Context
from autoprune.evaluation.workers import Failure, JudgeJob, Pool
from autoprune.plan import PruningPlan
from autoprune.structure.axes import Kept

UNKNOWN = Metrics(math.nan, math.nan, math.nan, math.nan, 0)


@dataclass(slots=True, eq=False)
class Objective:
    """Says how good and how cheap the pruned network is, for any plan, from the search role's proxy samples.

    A plan is judged batch by batch in the pool, and every judged batch is in the store before anybody hears of it; a
    batch that the store knows, from whatever run, is not judged again. Several plans at once are raced.
    """

    costs: Mapping[str, CostModel]
    """Cost name → what any plan costs."""
    budget: Budget
    """What a plan has to meet to be feasible."""
    score: Score
    """What is made of metrics, higher is better."""
    reward: Reward
    """What a search maximises: made of metrics, score, cost and budget."""
    batches: int
    """Into which the proxy is cut."""
    divisible: bool
    """Plans can be judged on some of the batches, so that the pool may share them out, and plans be raced."""
    pool: Pool
    """Judges plans."""
    store: Context | None = None
    """Where judged batches are kept; None for nowhere."""
    race: Race | None = None
    """When plans leave a batch of plans early; None: never."""
    _judged: dict[Kept, dict[int, Judged]] = field(default_factory=dict)
    _failed: dict[Kept, tuple[int, str]] = field(default_factory=dict)  # on so many batches, and why
    _seconds: dict[Kept, float] = field(default_factory=dict, init=False, repr=False)
    _worst: tuple[float, float] | None = None  # score and reward

    def evaluate(
        self, plans: Sequence[PruningPlan], *, against: PruningPlan | None = None, whole: bool = False
    ) -> list[Outcome]:
        """The outcomes of the plans, in their order; equal plans are judged once.

        Plans are raced against each other and against the plan `against`: all are judged on the first samples, and only
        those that may still win on more of them. Where one left the race early, its score and reward are those of the
        plan it was compared with, less what it was behind on the samples that both have seen. A plan that cannot be
        judged has `failed` set, and the worst score and reward so far.

        Args:
            plans: Plans to be judged.
            against: The plan that others are compared with; None for none.
            whole: No race.

        Raises:
            RuntimeError: A plan cannot be judged, and none was judged before it.
        """
        different = {plan.kept: plan for plan in plans}
        rival = None if against is None else against.kept
        if whole or self.race is None or not self.divisible or len({*different, rival} - {None}) < 2:
            self._judge(list(different), self._all)
            return self._outcomes(plans, dict.fromkeys(different, self._all), None)
        return self._outcomes(plans, *self._raced(self.race, list(different), rival))

    def select(self, plans: Sequence[PruningPlan], stages: Sequence[Stage]) -> list[Outcome]:
        """The outcomes of the plans, which are chosen among in stages: the best of each go on to the next one.

        Scores and rewards of plans that left before the end are estimates, as a race's are.

        Args:
            plans: Plans to be judged.
            stages: On which batches, and how many go on.

        Raises:
            RuntimeError: A plan cannot be judged, and none was judged before it.
        """
        alive = list(dict.fromkeys(plan.kept for plan in plans))
        seen: dict[Kept, Batches] = {}
        for stage in stages if self.divisible else [Stage(self._all, 1)]:
            self._judge(alive, stage.batches)
            seen |= dict.fromkeys(alive, stage.batches)
            alive = [kept for kept in alive if not self._fails(kept, stage.batches)]
            alive = sorted(alive, key=lambda kept: -self._scored(kept, seen[kept])[1])[: stage.survivors]
        reference = alive[0] if alive and len(seen[alive[0]]) == self.batches else None
        return self._outcomes(plans, seen, reference)

    def estimate(self, plans: Sequence[PruningPlan], *, reference: PruningPlan) -> list[Outcome]:
        """The outcomes of the plans, each judged until what it loses against the reference is known to 15 % of itself.

        They see the same stages of samples as a race's plans. Nothing is compared between them, and what is lost by
        little is judged on all samples. Where no race is possible, every plan is.

        Args:
            plans: Plans to be judged, whose losses are wanted one by one.
            reference: The plan that loses nothing, such as the dense one; it is judged on all samples.

        Raises:
            RuntimeError: A plan cannot be judged, and none was judged before it.
        """
        open_ones = list(dict.fromkeys(plan.kept for plan in plans if plan.kept != reference.kept))
        self._judge([reference.kept], self._all)
        seen: dict[Kept, Batches] = {reference.kept: self._all}
        stages = [self.batches] if self.race is None or not self.divisible else self.race.stages(self.batches)
        for stop in map(range, stages):
            self._judge(open_ones, stop)
            seen |= dict.fromkeys(open_ones, stop)
            open_ones = [
                k for k in open_ones if not (self._fails(k, stop) or self._is_precise(k, reference.kept, stop))
            ]
        compared = None if self._fails(reference.kept, self._all) else reference.kept
        return self._outcomes(plans, seen, compared, among=[reference])

    def seconds_per_plan(self, plan: PruningPlan) -> float | None:
        """What judging the plan on all samples will take in seconds, by the second of its batches; None where it fails.

        It is judged now, once, also where the store knows it: another run took the time that its machine had for it.

        Args:
            plan: Which is judged on two batches at most.
        """
        batches = range(min(2, self.batches))
        if plan.kept in self._seconds:
            return self._seconds[plan.kept]
        if self._fails(plan.kept, batches):
            return None
        judged = self._asked([JudgeJob(plan.kept, batches.start, batches.stop)]).get(plan.kept, {})
        if self._fails(plan.kept, batches):
            return None
        self._judged[plan.kept] = {**judged, **self._judged.get(plan.kept, {})}
        self._seconds[plan.kept] = judged[batches[-1]].seconds * self.batches
        return self._seconds[plan.kept]

    def close(self) -> None:
        """Ends the pool's workers and closes the store."""
        self.pool.close()
        if self.store is not None:
            self.store.store.close()

    @property
    def _all(self) -> range:
        return range(self.batches)

    def _raced(self, race: Race, plans: list[Kept], rival: Kept | None) -> tuple[dict[Kept, Batches], Kept | None]:
        """Which batches each plan was seen on, and the plan that those that left early are compared with.

        Which it is follows from the plans and the rival alone, whatever is known already.
        """
        if rival is not None:
            self._judge([rival], self._all)
            rival = None if self._fails(rival, self._all) else rival
        seen: dict[Kept, Batches] = {}
        alive = plans
        for stop in map(range, race.stages(self.batches)):
            self._judge(alive, stop)
            seen |= dict.fromkeys(alive, stop)
            alive = [kept for kept in alive if not self._fails(kept, stop)]
            if alive and len(stop) < self.batches:
                rewards = {kept: self._block_rewards(kept, stop) for kept in alive}
                samples = self._joined(alive[0], stop).samples
                to_beat = None if rival is None else self._block_rewards(rival, stop)
                alive = race.survivors(rewards, samples, to_beat)
        whole = [*alive, *([] if rival is None else [rival])]
        return seen, max(whole, key=lambda kept: self._scored(kept, self._all)[1], default=None)

    @plain_torch(alone=True)
    def _judge(self, plans: Sequence[Kept], batches: Batches) -> None:
        """The plans have been judged on the batches afterwards, or have failed."""
        jobs: list[JudgeJob] = []
        for kept in plans:
            earlier = self._judged.setdefault(kept, {})
            if self._fails(kept, batches):
                continue
            for start, stop in runs_of(batch for batch in batches if batch not in earlier):
                stored = [None] * (stop - start) if self.store is None else self.store.get(kept, start, stop)
                earlier |= {batch: each for batch, each in enumerate(stored, start) if each is not None}
            jobs += [JudgeJob(kept, *run) for run in runs_of(batch for batch in batches if batch not in earlier)]
        for kept, judged in (self._asked(self._shared_out(jobs)) if jobs else {}).items():
            if not self._fails(kept, batches):
                self._judged[kept] |= judged

    def _asked(self, jobs: Sequence[JudgeJob]) -> dict[Kept, dict[int, Judged]]:
        """What the pool answers, by plan and batch; it is in the store, and what failed is known to fail."""
        answers: dict[Kept, dict[int, Judged]] = {}
        for job, answer in self.pool.judge(jobs):
            if isinstance(answer, Failure):
                fails_on, reason = job.stop, answer.reason
                self._failed[job.kept] = min(self._failed.get(job.kept, (fails_on, reason)), (fails_on, reason))
                continue
            if self.store is not None:
                self.store.put(job.kept, job.start, answer)
            answers.setdefault(job.kept, {}).update(enumerate(answer, job.start))
        return answers

    def _fails(self, kept: Kept, batches: Batches) -> bool:
        """The plan is known not to be judged on these; on fewer it may be."""
        return kept in self._failed and max(batches) + 1 >= self._failed[kept][0]

    def _shared_out(self, jobs: Sequence[JudgeJob]) -> list[JudgeJob]:
        """Fewer plans than workers: each plan's batches are shared out among several."""
        parts = self.pool.size // len(jobs) if self.divisible else 1
        if parts < 2:
            return list(jobs)
        shares = []
        for job in jobs:
            cuts = np.linspace(job.start, job.stop, min(parts, job.stop - job.start) + 1).round().astype(int).tolist()
            shares += [JudgeJob(job.kept, start, stop) for start, stop in itertools.pairwise(cuts)]
        return shares

    def _outcomes(
        self,
        plans: Sequence[PruningPlan],
        seen: Mapping[Kept, Batches],
        reference: Kept | None,
        among: Sequence[PruningPlan] = (),
    ) -> list[Outcome]:
        """Of the plans, in their order. among: others that were judged; of all, those that failed get the worst."""
        different = {plan.kept: plan for plan in (*plans, *among)}
        failed_last = sorted(different, key=lambda kept: self._fails(kept, seen[kept]))
        outcomes = {kept: self._outcome(different[kept], seen[kept], reference) for kept in failed_last}
        return [outcomes[plan.kept] for plan in plans]

    def _outcome(self, plan: PruningPlan, seen: Batches, reference: Kept | None) -> Outcome:
        """Of a plan that was seen on these batches, compared with the reference where they are not all."""
        kept, amounts = plan.kept, np.array(plan.kept)
        cost = {name: float(model(amounts)) for name, model in self.costs.items()}
        if self._fails(kept, seen):
            failed = self._failed[kept][1]
            if self._worst is None:
                raise RuntimeError(f"the first plan that was evaluated could not be judged: {failed}")
            score, reward = self._worst
            return Outcome(plan, UNKNOWN, cost, score, reward, False, 0.0, whole=False, failed=failed)
        judged = self._joined(kept, seen)
        score, reward = self._scored(kept, seen)
        whole = len(seen) == self.batches
        if reference is not None and not whole:
            all_of, part_of = self._scored(reference, self._all), self._scored(reference, seen)
            score = min(score + all_of[0] - part_of[0], all_of[0])  # who has left has not won
            reward = min(reward + all_of[1] - part_of[1], all_of[1])
        if self._worst is None or reward < self._worst[1]:
            self._worst = score, reward
        feasible = float(self.budget.cost(amounts)) <= self.budget.limit
        return Outcome(plan, judged.metrics, cost, score, reward, feasible, judged.seconds, whole)

    def _joined(self, kept: Kept, batches: Batches) -> Judged:
        return joined([self._judged[kept][batch] for batch in batches])

    def _scored(self, kept: Kept, batches: Batches) -> tuple[float, float]:
        """Score and reward on the batches."""
        return self._worth(self._joined(kept, batches).metrics, self._share(kept))

    def _block_rewards(self, kept: Kept, batches: Batches) -> Rewards:
        share = self._share(kept)
        return np.array([self._worth(block, share)[1] for block in self._joined(kept, batches).blocks])

    def _is_precise(self, kept: Kept, reference: Kept, batches: Batches) -> bool:
        """Whether what the plan's score loses against the reference's is known well on these batches."""
        if self._fails(reference, batches):
            return False
        judged = [self._joined(each, batches) for each in (reference, kept)]
        scores = [np.array([self.score(block) for block in each.blocks]) for each in judged]
        return is_precise(scores[0] - scores[1], judged[1].samples.astype(np.float64))

    def _worth(self, metrics: Metrics, share: float) -> tuple[float, float]:
        score = self.score(metrics)
        reward = self.reward(metrics, score, share, self.budget.relative)
        if math.isnan(score) or math.isnan(reward):
            raise ValueError(f"score and reward must be numbers, got {score} and {reward} for {metrics}")
        return score, reward

    def _share(self, kept: Kept) -> float:
        return float(self.budget.cost(np.array(kept))) / self.budget.dense
