"""How the objective is revealed to an agent: group by group, as a whole plan, or as edits of the best plan so far."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from autoprune.agent.sb3_model import ReplaySeed
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.cost.rounding import Rounding
from autoprune.env.discrete import DiscreteLevels
from autoprune.env.layerwise import Evaluate, LayerwiseEnv
from autoprune.env.one_shot import OneShotEnv
from autoprune.env.plan_edits import EditEnv, Editing, EditVectorEnv
from autoprune.env.vector_envs import LayerwiseVectorEnv, OneShotVectorEnv
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.problem.problem import Problem
from autoprune.search.neighbours import switches_near
from autoprune.search.prior import Prior
from autoprune.structure.groups import Structure

Mode = Literal["layerwise", "one_shot", "edit"]
Start = Literal["none", "uniform", "sensitivity"]
Credit = Literal["terminal", "shaped"]
Sees = Literal["groups", "budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """What an agent's environment is.

    mode: one group per step; the whole plan as one action; or edits of the best plan so far, an evaluation each. prior:
    the plan that actions correct, or that edits begin at; its evaluations are charged. max_log_correction: how far a
    correction goes, in log-densities. levels: how many densities a DQN chooses from. edits: groups that one action
    changes at most; length: edits in an episode. credit: `shaped` pays for each group what its single-group curve says
    at once (LayerwiseEnv), `terminal` all at the end. tells: the agent's replay begins with what the prior's
    evaluations say. sees: all groups' features and the budget, or the budget alone: a policy for one network, with
    fewer weights.
    """

    mode: Mode
    prior: Start
    reward_shaping: Credit
    seed_replay: bool
    observation: Sees
    max_log_correction: float | None = None
    levels: int | None = None
    edits: int | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        self._check_choices()
        if (self.max_log_correction is None) != (self.prior == "none"):
            raise ValueError(
                "agent.max_log_correction says how far corrections to a prior go; got "
                f"max_log_correction={self.max_log_correction} with prior={self.prior}"
            )
        if self.max_log_correction is not None and not self.max_log_correction > 0:
            raise ValueError(
                f"agent.max_log_correction is how far corrections go, above 0; got {self.max_log_correction}"
            )
        if self.mode == "edit" and self.prior == "none":
            raise ValueError("edits begin at a plan: agent.mode=edit needs prior=uniform or sensitivity")
        for name in ("edits", "length"):
            if (getattr(self, name) is None) != (self.mode != "edit"):
                raise ValueError(f"agent.{name} is for mode=edit, which needs it; got {getattr(self, name)}")
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"agent.{name} must be at least 1, got {getattr(self, name)}")
        if self.levels is not None and self.mode != "layerwise":
            raise ValueError(
                f"DQN chooses one of {self.levels} levels for one group at a time; agent.mode must be layerwise"
            )
        if self.levels is not None and self.prior != "none":
            raise ValueError("DQN's levels are densities, not corrections: agent.levels needs prior=none")
        if self.reward_shaping == "shaped" and (self.mode != "layerwise" or self.prior != "sensitivity"):
            raise ValueError(
                "agent.reward_shaping=shaped pays group by group by single-group curves: it needs mode=layerwise and "
                f"prior=sensitivity, got {self.mode} and {self.prior}"
            )
        if self.seed_replay and (self.mode != "one_shot" or self.prior == "none"):
            raise ValueError(
                "agent.seed_replay says what the prior's evaluations said of whole plans: mode=one_shot and a prior"
            )
        if self.observation == "budget" and self.mode != "one_shot":
            raise ValueError(f"agent.observation=budget would not say which group is decided in mode={self.mode}")

    def _check_choices(self) -> None:
        for name, known in {
            "mode": ("layerwise", "one_shot", "edit"),
            "prior": ("none", "uniform", "sensitivity"),
            "reward_shaping": ("terminal", "shaped"),
            "observation": ("groups", "budget"),
        }.items():
            if getattr(self, name) not in known:
                *others, last = known
                raise ValueError(f"agent.{name} must be {', '.join(others)} or {last}, got {getattr(self, name)!r}")

    @property
    def evaluations(self) -> int:
        """That an episode takes."""
        return self.length or 1

    def steps(self, structure: Structure) -> int:
        """Of an episode."""
        return len(structure.groups) if self.mode == "layerwise" else self.evaluations


@dataclass(frozen=True, slots=True, eq=False)
class EnvFactory:
    """A problem's environments: each is new, but that those for edits share the best plan so far."""

    problem: Problem
    reveal: EnvSpec
    projector: Projector
    evaluate: Evaluate
    prior: Prior | None
    editing: Editing | None

    def one(self) -> gymnasium.Env[Any, Any]:
        """For one episode at a time."""
        if self.editing is not None:
            return EditEnv(self.editing, evaluate=self.evaluate, features=self.problem.features)
        if self.reveal.mode == "one_shot":
            return OneShotEnv(**self._parts)
        env = LayerwiseEnv(**self._parts, lost=self._lost)
        return env if self.reveal.levels is None else DiscreteLevels(env, levels=self.reveal.levels)

    def many(self, episodes: int) -> VectorEnv[Any, Any, Any]:
        """All episodes of a rollout at once: their plans are one batch for the objective."""
        if self.editing is not None:
            return EditVectorEnv(
                self.editing, num_envs=episodes, evaluate=self.evaluate, features=self.problem.features
            )
        if self.reveal.mode == "one_shot":
            return OneShotVectorEnv(num_envs=episodes, **self._parts)
        if self.reveal.levels is not None:
            raise ValueError("DQN acts in one episode at a time; set agent.agent.experience.parallel=1")
        return LayerwiseVectorEnv(num_envs=episodes, **self._parts, lost=self._lost)

    def with_evaluate(self, evaluate: Evaluate) -> "EnvFactory":
        return replace(self, evaluate=evaluate)

    def known(self) -> ReplaySeed:
        """What the prior's evaluations say of whole plans, the prior's own last."""
        assert self.prior is not None  # Reveal has checked it
        env = OneShotEnv(**self._parts)
        outcomes = [*self.prior.others, self.prior.outcome]
        kept = np.array([outcome.plan.kept for outcome in outcomes])
        return ReplaySeed(
            observation=env.reset()[0],
            actions=env.action_of(kept),
            rewards=np.array([outcome.reward for outcome in outcomes]),
            executable=env.executable,
            near=switches_near(self.projector, plans_of=env.plans_of, action_of=env.action_of),
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the observations are."""
        if self.reveal.mode == "layerwise":
            return LayerwiseEnv.feature_names
        if self.reveal.mode == "edit":
            return (*GROUP_FEATURES, "density", "budget")
        return ("budget",) if self.reveal.observation == "budget" else (*GROUP_FEATURES, "budget")

    @property
    def _parts(self) -> dict[str, Any]:
        features = self.problem.features
        return {
            "structure": self.problem.structure,
            "projector": self.projector,
            "evaluate": self.evaluate,
            "features": features if self.reveal.observation == "groups" else features[:, :0],
            "prior": None if self.prior is None else np.array(self.prior.outcome.plan.kept),
            "max_log_correction": self.reveal.max_log_correction or 1.0,
        }

    @property
    def _lost(self) -> list[FloatArray] | None:
        if self.reveal.reward_shaping != "shaped":
            return None
        assert self.prior is not None  # Reveal has checked it
        assert self.prior.curves is not None
        groups = self.problem.structure.groups
        return [self.prior.curves[group.name].at(np.arange(group.units + 1).tolist()) for group in groups]


def revealed(
    problem: Problem,
    reveal: EnvSpec,
    *,
    prior: Prior | None,
    evaluate: Evaluate,
    projected: bool,
) -> EnvFactory:
    """projected: every action becomes a plan inside the budget; otherwise it is only rounded."""
    projector = problem.projector if projected else Rounding(problem.structure, problem.projector.budget)
    editing = None
    if reveal.mode == "edit":
        assert prior is not None  # Reveal has checked it
        assert reveal.edits is not None
        assert reveal.length is not None
        editing = Editing(
            problem.structure,
            projector,
            prior.outcome,
            edits=min(reveal.edits, len(problem.structure.groups)),
            max_log_correction=reveal.max_log_correction or 1.0,
            length=reveal.length,
        )
    return EnvFactory(problem, reveal, projector, evaluate, prior, editing)
