"""How the objective is revealed to an agent: group by group, as a whole plan, or as edits of the best plan so far."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector, Rounding
from autoprune.env.action_scale import PlanScale
from autoprune.env.episodes import Array, Evaluate, PlanVectorEnv, SingleEpisode
from autoprune.env.layerwise import FEATURE_NAMES, LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.env.plan_edits import Editing, EditVectorEnv
from autoprune.env.replay_seed import ReplaySeed
from autoprune.prior.level_switches import log_midpoint_target, switches_near
from autoprune.prior.starts import Prior, price, prior_of
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.problem.problem import Problem
from autoprune.ranges import Count, FinitePositive, check_fields
from autoprune.structure.groups import IntArray, Structure

Mode = Literal["layerwise", "one_shot", "edit"]
PriorName = Literal["none", "uniform", "sensitivity", "closed_form"]
RewardShaping = Literal["terminal", "shaped"]
Observed = Literal["groups", "budget"]

MAX_LOG_CORRECTION = 1.5  # where a prior is corrected and nothing else is said


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """What an agent's environment is; an option that does not apply is an error.

    >>> EnvSpec(mode="one_shot", prior="uniform").max_log_correction
    1.5
    """

    mode: Mode
    """One group per step, the whole plan as one action, or edits of the best plan so far."""
    prior: PriorName = "none"
    """The plan that actions correct, or that edits begin at; its evaluations are charged."""
    reward_shaping: RewardShaping = "terminal"
    """`shaped` pays for each group at once what its single-group curve says, `terminal` all at the end."""
    seed_replay: bool = False
    """Whether the agent's replay begins with what the prior's evaluations say."""
    observation: Observed = "groups"
    """All groups' features and the budget, or the budget alone: a policy for one network, with fewer weights."""
    max_log_correction: FinitePositive | None = None
    """What an action of 1 adds to the prior's log-density; None is MAX_LOG_CORRECTION where there is a prior."""
    levels: Count | None = None
    """Densities of a discrete action space, which DQN needs."""
    edits: Count | None = None
    """Groups that one action of mode=edit changes at most."""
    length: Count | None = None
    """Edits in an episode of mode=edit."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.env")
        if self.max_log_correction is None and self.prior != "none":
            object.__setattr__(self, "max_log_correction", MAX_LOG_CORRECTION)
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> list[str]:
        """What does not fit together, the first first."""
        problems = []
        if self.prior == "none" and self.max_log_correction is not None:
            problems.append(
                "agent.env.max_log_correction says how far corrections to a prior go; got "
                f"max_log_correction={self.max_log_correction} with prior=none"
            )
        if self.mode == "edit" and self.prior == "none":
            problems.append(
                "edits begin at a plan: agent.env.mode=edit needs agent.env.prior=uniform, sensitivity or closed_form"
            )
        for name in ("edits", "length"):
            value = getattr(self, name)
            if (value is None) != (self.mode != "edit"):
                problems.append(
                    f"agent.env.{name} is for agent.env.mode=edit, which needs it; got {value} with {self.mode}"
                )
        if self.levels is not None and (self.mode != "layerwise" or self.prior != "none"):
            problems.append(
                f"agent.env.levels={self.levels} are densities of one group at a time, not corrections: they need "
                f"agent.env.mode=layerwise and agent.env.prior=none, got {self.mode} and {self.prior}"
            )
        if self.reward_shaping == "shaped" and (self.mode != "layerwise" or self.prior != "sensitivity"):
            problems.append(
                "agent.env.reward_shaping=shaped pays group by group by single-group curves: it "
                "needs agent.env.mode=layerwise and "
                f"agent.env.prior=sensitivity, got {self.mode} and {self.prior}"
            )
        if self.seed_replay and (self.mode != "one_shot" or self.prior == "none"):
            problems.append(
                "agent.env.seed_replay tells the agent what whole plans earned: it needs "
                "agent.env.mode=one_shot and a prior, got "
                f"{self.mode} and {self.prior}"
            )
        if self.observation == "budget" and self.mode != "one_shot":
            problems.append(
                f"agent.env.observation=budget would not say which group is decided in agent.env.mode={self.mode}"
            )
        return problems

    @property
    def evaluations(self) -> int:
        """Evaluations of an episode."""
        return self.length or 1

    @property
    def features(self) -> tuple[str, ...]:
        """What is observed, once for all groups."""
        if self.mode == "layerwise":
            return FEATURE_NAMES
        if self.observation == "budget":
            return ("budget",)
        return (*GROUP_FEATURES, "density", "budget") if self.mode == "edit" else (*GROUP_FEATURES, "budget")

    def steps(self, structure: Structure) -> int:
        """Returns the steps of an episode."""
        return len(structure.groups) if self.mode == "layerwise" else self.evaluations

    def price(self, problem: Problem) -> int:
        """Returns the evaluations that the prior costs. Raises ValueError where fewer are left."""
        return 0 if self.prior == "none" else price(problem, start=self.prior)

    def prior_of(self, problem: Problem) -> Prior | None:
        """Returns the prior, evaluated and charged."""
        return None if self.prior == "none" else prior_of(problem, start=self.prior)

    def as_json(self) -> dict[str, Any]:
        """Returns the fields, as a policy's bundle has them."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class EnvFactory:
    """A problem's environments: each is new, but that those for edits share the best plan so far."""

    problem: Problem
    """What is searched."""
    spec: EnvSpec
    """What the environments are."""
    evaluate: Evaluate
    """Judges a batch of plans."""
    prior: Prior | None
    """The plan of `spec.prior`, evaluated."""
    projected: bool = True
    """Whether every action becomes a plan inside the budget; otherwise it is only rounded."""

    def one(self, **options: Any) -> SingleEpisode:
        """Returns an environment for one episode at a time. options: render_mode."""
        return SingleEpisode(partial(self.batch, **options))

    def batch(self, num_envs: int, **options: Any) -> PlanVectorEnv:
        """Returns one for so many episodes, whose plans are one batch. options: autoreset_mode and render_mode."""
        options |= {"num_envs": num_envs, "evaluate": self.evaluate, "features": self._features}
        env: PlanVectorEnv
        if self.editing is not None:
            env = EditVectorEnv(self.editing, **options)
        elif self.spec.mode == "one_shot":
            env = OneShotVectorEnv(**options, **self._parts)
        else:
            env = LayerwiseVectorEnv(lost=self._lost, levels=self.spec.levels, **options, **self._parts)
        env.problem = self.problem
        return env

    def with_evaluate(self, evaluate: Evaluate) -> "EnvFactory":
        """Returns the same environments, whose plans another function judges."""
        return replace(self, evaluate=evaluate)

    def replay_seed(self) -> ReplaySeed:
        """Returns what the prior's evaluations say of whole plans, the prior's own last."""
        assert self.prior is not None  # EnvSpec has checked it
        env = OneShotVectorEnv(num_envs=1, evaluate=self.evaluate, features=self._features, **self._parts)
        outcomes = [*self.prior.others, self.prior.outcome]
        kept = np.array([outcome.plan.kept for outcome in outcomes])
        return ReplaySeed(
            observation=env.reset()[0][0],
            actions=env.action_of(kept),
            rewards=np.array([outcome.reward for outcome in outcomes]),
            executable=env.executable,
            neighbours=switches_near(self.projector, plans_of=env.plans_of, action_of=env.action_of),
            done=len(outcomes) if self.prior.curves is None else 1,  # plans of curves exceed the budget
        )

    def demonstration(self, kept: IntArray) -> tuple[Array, Array]:
        """Returns what is observed [steps, features] and done [steps, …] in an episode that ends with this plan.

        As far as actions can say it: a correction is no larger than max_log_correction. The plan is evaluated by
        `evaluate`. Only for actions in a box, in mode=one_shot or layerwise.
        """
        prior = self._parts["prior"]
        scale = PlanScale.around(prior, self.problem.structure, self._parts["max_log_correction"])
        actions = scale.action(log_midpoint_target(self.projector, kept))
        env = self.batch(1)
        observations, done = [env.reset()[0][0]], []
        for action in [actions] if self.spec.mode == "one_shot" else actions[:, None]:
            done.append(action)
            observations.append(env.step(action[None])[0][0])
        return np.stack(observations[:-1]), np.stack(done)

    @cached_property
    def projector(self) -> Projector:
        """What turns actions into plans."""
        problem = self.problem
        return problem.projector if self.projected else Rounding(problem.structure, problem.projector.budget)

    @cached_property
    def editing(self) -> Editing | None:
        """What edits mean, in mode=edit."""
        if self.spec.mode != "edit":
            return None
        assert self.prior is not None  # EnvSpec has checked it
        return Editing(
            self.problem.structure,
            self.projector,
            self.prior.outcome,
            edits=min(self.spec.edits or 1, len(self.problem.structure.groups)),
            max_log_correction=self.spec.max_log_correction or MAX_LOG_CORRECTION,
            length=self.spec.evaluations,
        )

    @cached_property
    def _features(self) -> FloatArray:
        features = self.problem.features
        return features if self.spec.observation == "groups" else features[:, :0]

    @property
    def _parts(self) -> Mapping[str, Any]:
        return {
            "structure": self.problem.structure,
            "projector": self.projector,
            "prior": None if self.prior is None else np.array(self.prior.outcome.plan.kept),
            "max_log_correction": self.spec.max_log_correction or MAX_LOG_CORRECTION,
        }

    @property
    def _lost(self) -> list[FloatArray] | None:
        if self.spec.reward_shaping != "shaped":
            return None
        assert self.prior is not None  # EnvSpec has checked it
        assert self.prior.curves is not None
        groups = self.problem.structure.groups
        return [self.prior.curves[group.name].at(np.arange(group.units + 1).tolist()) for group in groups]
