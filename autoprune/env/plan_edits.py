"""Editing a plan: each step changes a few groups of it, and episodes begin at the best plan so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.episodes import HIGHEST, LOWEST, Array, Evaluate, Infos, Observation, PlanVectorEnv, Transition
from autoprune.env.one_shot import names_of
from autoprune.evaluation.outcome import Outcome
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import IntArray, Structure


@dataclass(slots=True, eq=False)
class Editing:
    """What edits mean, and the best plan so far, which all environments of one search share.

    What an edit earns is what it gains over the plan that it was made on, as a fraction of the start's reward; so an
    episode's return is what it gains over the best plan so far.
    """

    structure: Structure
    """Groups to decide on."""
    projector: Projector
    """Holds the budget."""
    start: Outcome
    """Of a plan inside the budget, that the first episodes begin at."""
    edits: int
    """Groups that an action changes at most."""
    max_log_correction: float
    """What an action of 1 adds to a group's log-density."""
    length: int = 1
    """Edits in an episode."""
    best: Outcome = field(init=False)
    """Of the best plan so far."""
    unit: float = field(init=False)
    """Of rewards: the start's magnitude."""

    def __post_init__(self) -> None:
        if not 1 <= self.edits <= len(self.structure.groups):
            raise ValueError(
                f"edits is how many of the {len(self.structure.groups)} groups an action changes, got {self.edits}"
            )
        if self.max_log_correction <= 0 or self.length < 1:
            raise ValueError(
                "max_log_correction must be positive and length at least 1, got "
                f"{self.max_log_correction} and {self.length}"
            )
        if not self.start.feasible:
            raise ValueError(f"edits begin at a plan inside the budget; {self.start.plan.kept} exceeds it")
        self.best, self.unit = self.start, abs(self.start.reward) or 1.0

    def edited(self, kept: IntArray, actions: Array) -> tuple[IntArray, Action]:
        """Returns the plans that actions [episodes, groups] make of kept [episodes, groups], and what was executed.

        An action's largest entries are carried out and the others are not; the budget is restored by all groups alike.

        Args:
            kept: Units that each group keeps [..., groups].
            actions: Actions [batch, action], in [−1, 1].
        """
        changes = np.clip(actions, -1, 1)
        by_size = np.argsort(-np.abs(changes), axis=-1, kind="stable")  # of equal ones, the first
        np.put_along_axis(changes, by_size[:, self.edits :], 0.0, axis=-1)
        scale = PlanScale.around(kept, self.structure, self.max_log_correction)  # every episode's own
        edited = self.projector.project(scale.density(changes))
        return edited, scale.action(edited / self.structure.units)

    def gains(self, outcomes: Sequence[Outcome], before: FloatArray) -> FloatArray:
        """Returns what each outcome earns over the rewards before it [episodes], and remembers the best plan so far.

        Args:
            outcomes: What was evaluated, with its results.
            before: The rewards of the plans that were edited [episodes].
        """
        for outcome in outcomes:
            if outcome.feasible and outcome.whole and outcome.reward > self.best.reward:
                self.best = outcome
        gains: FloatArray = (np.array([outcome.reward for outcome in outcomes]) - before) / self.unit
        return gains


class EditVectorEnv(PlanVectorEnv):
    """Every step changes a few groups of a plan and evaluates it; episodes begin at the best plan so far.

    An action [groups] in [−1, 1] is a change of log-densities over `max_log_correction`; 0 changes nothing.
    Observations are every group's features and its present density, and the budget over dense. A reset with a seed
    forgets all plans but the start.

    Args:
        editing: What edits mean; environments that share it begin at the same best plan.
        evaluate: Judges a batch of plans.
        features: What is observed of each group [groups, len(GROUP_FEATURES)].
        options: num_envs, autoreset_mode and render_mode of PlanVectorEnv.
    """

    def __init__(self, editing: Editing, *, evaluate: Evaluate, features: FloatArray, **options: Any) -> None:
        structure = editing.structure
        groups = len(structure.groups)
        super().__init__(
            structure=structure,
            projector=editing.projector,
            evaluate=evaluate,
            observation_space=Box(LOWEST, HIGHEST, (features.size + groups + 1,), np.float32),
            action_space=Box(-1, 1, (groups,), np.float32),
            feature_names=names_of(structure, (*GROUP_FEATURES[: features.shape[1]], "density")),
            **options,
        )
        self.editing, self._features = editing, features
        self._begin()

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        if seed is not None:  # the same seed has to give the same episodes
            self.editing.best = self.editing.start
        return super().reset(seed=seed, options=options)

    def _begin(self) -> Observation:
        best = self.editing.best
        self._now = np.tile(np.array(best.plan.kept, np.int64), (self.num_envs, 1))
        self._rewards: FloatArray = np.full(self.num_envs, best.reward)
        self._made = 0
        return self._observe()

    def _advance(self, actions: Array) -> Transition:
        kept, executed = self.editing.edited(self._now, actions)
        outcomes, infos = self._judged(kept)
        gains = self.editing.gains(outcomes, self._rewards)
        self._now, self._rewards, self._made = kept, np.array([o.reward for o in outcomes]), self._made + 1
        return Transition(self._observe(), gains, self._made == self.editing.length, executed, infos)

    def _observe(self) -> Observation:
        density = self._now / self.structure.units
        fixed = np.tile(self._features, (self.num_envs, 1, 1))
        rows = np.concatenate([fixed, density[..., None]], axis=-1).reshape(self.num_envs, -1)
        budget = np.full((self.num_envs, 1), self.projector.budget.relative)
        return np.concatenate([rows, budget], axis=1).astype(np.float32)
