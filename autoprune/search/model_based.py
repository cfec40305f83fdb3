"""Model-based reinforcement learning: an agent learns in a model of what plans are worth, and its policy is evaluated.

Dyna's loop (Sutton, 1991; MBPO, arXiv 1906.08253). A model is fitted to every plan that was paid for. The agent
plays thousands of imagined episodes whose plans the model judges, and imitates the best plan met. Its own plan and
what the model hopes for near the best plans are evaluated, and the model is fitted again. What a plan is worth does not
depend on the budget, so one model serves several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge
from torch import Tensor

from autoprune.agent.agent_spec import AgentSpec
from autoprune.agent.learn import learn
from autoprune.agent.self_imitation import imitate
from autoprune.agent.trained_policy import TrainedPolicy, act_zero
from autoprune.cost.budget import Budget, parse_budget
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.env.episodes import Array
from autoprune.env.several_budgets import SeveralBudgetsVectorEnv
from autoprune.evaluation.metered import POLICY, SEARCH, EvaluationsSpent
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, Natural, NonNegative, check_fields
from autoprune.search.paid_plans import PaidPlans, log_exhausted
from autoprune.search.policy_trials import play
from autoprune.search.rl import save_own_policy
from autoprune.structure.groups import IntArray

if TYPE_CHECKING:
    from autoprune.search.transferred_start import TransferredPolicy, TransferredStart

ENDLESS = 10**9  # imagined episodes: the evaluations end the search
SMALLEST = 1e-9
CLONING = 100  # gradient steps at least, until a fresh policy makes the plan of one that is transferred here
BUDGET_WAVES = 4  # of several budgets: without them five plans were not learned by heart (experiments/policies)
UNJUDGED = Metrics(np.nan, np.nan, np.nan, np.nan, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaginedPlay:
    """What happens between two batches of evaluations, and what is evaluated then."""

    updates: Count
    """Of the agent, each on a rollout of imagined episodes, between two batches."""
    batch: Annotated[int, Ge(2)]
    """Plans that are evaluated at once, the policy's own among them."""
    candidates_per_evaluation: Count
    """Neighbours of the best plans and of the policy's that are ranked, for each plan that is evaluated."""
    elite: Count
    """Of the best plans, whose neighbours are candidates."""
    kappa: NonNegative
    """Standard deviations that are hoped for above the model's mean."""
    imitation: Natural
    """Gradient steps after each batch towards the best plan of every budget; 0 for none."""
    pessimism: NonNegative
    """Standard deviations below the model's mean that the agent is rewarded by (MOPO, arXiv 2005.13239)."""
    ranking: Literal["model", "random"] = "model"
    """Who chooses among the candidates; `random` is an ablation."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.imagination")


def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    env: EnvSpec,
    agent: AgentSpec,
    imagination: ImaginedPlay,
    budgets: Sequence[str],
    policy: str | None = None,
) -> PruningPlan:
    """Returns the best plan met; the policy whose own plan was best is saved in the run's folder.

    With a policy that learned on other networks, the model's prior mean is what its critics say, its proposals are
    evaluated first, and imagined training starts from the policy that makes the first of them.

    Args:
        problem: What is searched.
        rng: Draws candidates and seeds the agent.
        env: How imagined episodes are revealed to the agent.
        agent: What learns in them, on policy.
        imagination: What is imagined and what is evaluated.
        budgets: Others that the policy shall serve, too: evaluations are spread over all.
        policy: A transferable one, as exchange.policies.fetch_policy takes it; None for from nothing.

    Raises:
        ValueError: An option does not apply, or too few evaluations are left, before anything is charged.
    """
    if agent.off_policy or agent.memory is not None or env.mode == "edit" or env.seed_replay:
        raise ValueError(
            "imagined episodes are those of A2C or PPO in agent.env.mode=one_shot or layerwise, without seed_replay; "
            f"got {agent.algorithm} with mode={env.mode} and seed_replay={env.seed_replay}"
        )
    if budgets and agent.network == "whole" and not agent.budget_waves:
        agent = replace(agent, budget_waves=BUDGET_WAVES)
    problems = [problem, *(under(problem, text) for text in budgets)]
    _check_budgets([each.projector.budget for each in problems], episodes=agent.parallel_episodes)
    begins = None if policy is None else _transferred(policy, problem, budgets, count=imagination.batch)
    price = sum(env.price(each) for each in problems) + (0 if begins is None else begins.price)
    if problem.objective.left < (needed := price + len(problems) * imagination.batch):
        raise ValueError(
            f"model-based search needs {needed} evaluations: {price} for where it begins, and a batch for each budget; "
            f"got {problem.objective.left}. Give it more with evaluations=N"
        )
    transferred = None if begins is None else begins.start(rng)
    paid = PaidPlans(problem.structure.units, prior=None if transferred is None else transferred.value)
    serving = [BudgetShare(each, env, paid, imagination, alone=not budgets) for each in problems]
    for each in serving:
        each.begin(rng, transferred)
    rounds = _Rounds(problem, serving, imagination, rng, transferred)
    part = agent.parallel_episodes
    learned = learn(
        agent,
        env=SeveralBudgetsVectorEnv([each.factory for each in serving], num_envs=part),
        episode_steps=env.steps(problem.structure),
        episodes=ENDLESS,
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        on_update=rounds.when_due,
        begin=rounds.begin,
    )
    rounds.finish(learned.policy)
    save_own_policy(problem, env, learned.policy, others=[each.projector.budget for each in problems[1:]])
    return best_plan(problem)


def _transferred(policy: str, problem: Problem, budgets: Sequence[str], *, count: int) -> "TransferredPolicy":
    """The policy that the search begins with. Raises ValueError where it can't, before anything is charged."""
    if budgets:
        raise ValueError(
            f"a transferred policy's critics are asked under one budget: policy={policy} needs agent.budgets=[], got "
            f"{list(budgets)}"
        )
    from autoprune.search.transferred_start import TransferredPolicy  # it imports W&B, where policies may come from

    return TransferredPolicy.of(policy, problem, count=count)


def under(problem: Problem, budget: str) -> Problem:
    """Returns the problem under another budget; what is asked there is charged here.

    Args:
        problem: What is searched.
        budget: `cost:amount`.
    """
    return replace(problem.under(parse_budget(budget, problem.costs, problem.structure)), objective=problem.objective)


def _check_budgets(budgets: Sequence[Budget], *, episodes: int) -> None:
    """Raises ValueError where a policy could not tell two budgets apart by what it observes, a share of the dense cost.

    Args:
        budgets: The run's and the others.
        episodes: Of a rollout, in which every budget needs one.
    """
    first, shares = budgets[0], set[float]()
    if len(budgets) > episodes:
        raise ValueError(f"{len(budgets)} budgets need an episode each, got agent.agent.experience.episodes={episodes}")
    for budget in budgets:
        if [bound.cost.name for bound in budget.bounds] != [bound.cost.name for bound in first.bounds]:
            raise ValueError(
                f"agent.budgets bound the same cost as the run's budget {first.text!r}, because the policy sees "
                f"no more of them than a share of the dense network; got {budget.text!r}"
            )
        if budget.relative in shares:
            raise ValueError(f"agent.budgets are other budgets than the run's, each once; got {budget.text!r} twice")
        shares.add(budget.relative)


@dataclass(eq=False)
class BudgetShare:
    """One budget of the search: its imagined environments, its best plans, and the best of the policy's own."""

    problem: Problem
    """Under this budget."""
    env: EnvSpec
    """How a plan is made of actions."""
    paid: PaidPlans
    """What was evaluated under it."""
    imagination: ImaginedPlay
    """Environments that answer by the model of plans."""
    alone: bool = True
    """Whether it is the only one: plans of several budgets are not raced, as the loosest one's would win."""

    def begin(self, rng: np.random.Generator, transferred: "TransferredStart | None") -> None:
        """The plans that the search begins at are paid for, and as many more as a model needs.

        Args:
            rng: Draws those.
            transferred: What a policy from elsewhere proposes; None for nothing.
        """
        prior, projector = self.env.prior_of(self.problem), self.problem.projector
        self.paid.add([] if prior is None else [prior.outcome, *prior.others])
        if transferred is not None:
            self.paid.add(transferred.outcomes)
            new = {plan.kept for plan in transferred.proposals} - self.paid.outcomes.keys()
            self.judge(np.array([p.kept for p in transferred.proposals if p.kept in new], np.int64))
        if not len(self.paid.best(1, projector)):  # without a prior, or where its plans could not be judged
            self.judge(projector.project(np.ones((1, len(projector.units)))))
        if not len(self.paid.best(1, projector)):
            raise RuntimeError("the plan that the search begins at can't be judged, so that nothing can be learned")
        while not self.paid.fitted:
            batch = self.imagination.batch
            near = self.candidates(self.paid.best(1, projector), count=batch, enough=1, rng=rng)
            self.judge(near[:batch])
            if not len(near):
                self.paid.fit()
                break
        factory = EnvFactory(self.problem, self.env, self._imagined, prior)
        self.factory, self.apart = factory, factory.one()
        self.first = max(self.paid.outcomes[tuple(kept)].reward for kept in self.paid.best(1, projector).tolist())

    def own(self, policy: TrainedPolicy) -> PruningPlan:
        """Returns the plan that the policy makes without exploring; it is not evaluated."""
        return play(self.apart, policy).plan

    def demonstration(self, plan: PruningPlan | None = None) -> tuple[Array, Array]:
        """Returns observations and actions of an imagined episode that ends with this plan; None: the best so far."""
        kept = self.paid.best(1, self.problem.projector)[0] if plan is None else np.array(plan.kept)
        return self.factory.demonstration(kept)

    def gain(self, plan: PruningPlan) -> float:
        """Returns by how much a paid plan is better than where the search began, as a share of what that scored."""
        return (self.paid.outcomes[plan.kept].reward - self.first) / max(abs(self.first), SMALLEST)

    def candidates(self, plans: IntArray, *, count: int, enough: int, rng: np.random.Generator) -> IntArray:
        """Returns new plans near these [plans, groups]; none where nothing near is new.

        Args:
            plans: Inside the budget [plans, groups].
            count: How many are drawn.
            enough: How many of them shall be new.
            rng: Draws them.
        """
        return self.paid.neighbours(plans, self.problem.projector, count=count, enough=enough, rng=rng)

    def explore(self, own: PruningPlan, *, count: int, rng: np.random.Generator) -> bool:
        """Of what is near the best plans and the policy's own, `count` plans are evaluated; returns if any was new.

        Args:
            own: The policy's plan.
            count: At least 1.
            rng: Draws the candidates.
        """
        asked = self.imagination
        near = np.concatenate([self.paid.best(asked.elite, self.problem.projector), np.array([own.kept], np.int64)])
        kept = self.candidates(near, count=count * asked.candidates_per_evaluation, enough=count, rng=rng)
        if len(kept) and self.paid.informed and asked.ranking == "model":
            kept = kept[self.paid.model.batch(kept, count=count, kappa=asked.kappa)]
        self.judge(kept[:count])
        return len(kept) > 0

    def judge(self, kept: IntArray, *, phase: str = SEARCH) -> None:
        """The plans, if any, are evaluated, charged and added to what is known.

        Args:
            kept: Units [plans, groups].
            phase: Of the search, or of the policy's own plans, which are judged on all samples.
        """
        plans = [self.problem.structure.plan(row) for row in kept]
        raced = self.alone and self.problem.objective.best is not None and phase == SEARCH
        if plans:
            self.paid.add(self.problem.objective.evaluate(plans, phase=phase, raced=raced))

    def _imagined(self, plans: Sequence[PruningPlan]) -> list[Outcome]:
        """What the model says of plans, as if they had been judged."""
        kept = np.array([plan.kept for plan in plans], np.int64)
        rewards = self.paid.model.expected(kept, pessimism=self.imagination.pessimism)
        return [
            Outcome(plan, UNJUDGED, {}, reward, reward, feasible=True, seconds=0.0, whole=True)
            for plan, reward in zip(plans, rewards.tolist(), strict=True)
        ]


@dataclass(eq=False)
class _Rounds:
    """Evaluates what policy and model propose, after every so many updates; keeps the policy's best weights.

    The policy that has not learned makes the prior's plan, and is among those that can be the best.
    """

    problem: Problem
    serving: Sequence[BudgetShare]
    imagination: ImaginedPlay
    rng: np.random.Generator
    transferred: "TransferredStart | None" = None
    updates: int = 0
    turn: int = 0
    exhausted: int = 0
    best: float = -np.inf
    _weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Evaluations, but those at the end, one for each budget."""
        return self.problem.objective.left - len(self.serving)

    def begin(self, policy: TrainedPolicy) -> None:
        """The policy makes the prior's plans: what it becomes is held against them."""
        if self.serving[0].env.prior != "none":
            act_zero(policy)
        self._keep_if_best(policy)
        if self.transferred is not None and self.transferred.proposals:
            observations, actions = self.serving[0].demonstration(self.transferred.proposals[0])
            imitate(policy, observations, actions, steps=max(CLONING, self.imagination.imitation))
            self._keep_if_best(policy)

    def when_due(self, policy: TrainedPolicy) -> None:
        """A batch is evaluated if it is time.

        Raises:
            EvaluationsSpent: Only the policy's last plans are left, or nothing near the best ones is new.
        """
        self.updates += 1
        if self.updates % self.imagination.updates == 0:
            before, turn = self.left, self.serving[self.turn % len(self.serving)]
            if turn.alone:
                self._keep_if_best(policy)
            else:
                self._evaluate_own(policy, turn)
            count = min(self.imagination.batch - (before - self.left), self.left)
            if count > 0:
                new = turn.explore(turn.own(policy), count=count, rng=self.rng)
                self.exhausted = 0 if new else self.exhausted + 1
                self._imitate(policy)
            self.turn += 1
            if self.turn % len(self.serving) == 0:
                self._keep_if_best(policy)
            if self.exhausted == len(self.serving):
                log_exhausted(self.problem.objective.spent, self.problem.objective.limit)
                raise EvaluationsSpent("nothing near the best plans is new")
        if self.left <= 0:
            raise EvaluationsSpent("what is left is for the policy's own plans")

    def _imitate(self, policy: TrainedPolicy) -> None:
        """The policy is drawn to the best plan of every budget."""
        if not self.imagination.imitation:
            return
        episodes = [each.demonstration() for each in self.serving]
        observations, actions = (np.concatenate(of) for of in zip(*episodes, strict=True))
        error = imitate(policy, observations, actions, steps=self.imagination.imitation)
        self.problem.log_agent({"train/imitation_error": error}, self.problem.objective.spent)

    def _evaluate_own(self, policy: TrainedPolicy, share: BudgetShare) -> PruningPlan:
        """Returns the policy's own plan under one budget; it is evaluated where it is new, if anything is left."""
        plan = share.own(policy)
        outcome = share.paid.outcomes.get(plan.kept)
        if self.left > 0 and (outcome is None or not outcome.whole):
            share.judge(np.array([plan.kept]), phase=POLICY if share.alone else SEARCH)  # in the end one for each
        return plan

    def _keep_if_best(self, policy: TrainedPolicy) -> None:
        """The policy's own plans are evaluated; its weights are kept if these gain most over where the search began."""
        plans = [self._evaluate_own(policy, each) for each in self.serving]
        outcomes = [each.paid.outcomes.get(plan.kept) for each, plan in zip(self.serving, plans, strict=True)]
        if not all(outcome is not None and outcome.whole for outcome in outcomes):
            return  # one of them could not be judged, or nothing was left
        gain = float(np.mean([each.gain(plan) for each, plan in zip(self.serving, plans, strict=True)]))
        if gain >= self.best:
            self.best, self._weights = gain, {k: v.clone() for k, v in policy.network.state_dict().items()}

    def finish(self, policy: TrainedPolicy) -> None:
        """The policy gets its best weights, and its own plans are evaluated with them: the last evaluations."""
        self._keep_if_best(policy)  # as it is after the last batch
        if self._weights:
            policy.network.load_state_dict(self._weights)
        for each in reversed(self.serving):  # the search's own budget last
            each.judge(np.array([each.own(policy).kept]), phase=POLICY)
