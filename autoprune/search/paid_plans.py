"""All plans that a search has paid for, the model that is fitted to them, and new plans near the best of them."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.evaluation.outcome import Outcome
from autoprune.prior.level_switches import SWITCHED, Kept, Switch, mutated
from autoprune.prior.switch_batches import switched_neighbours
from autoprune.search.plan_model import PlanModel
from autoprune.structure.groups import IntArray

log = logging.getLogger(__name__)
LEAST = 4  # plans that a model is fitted to
INFORMED = 20  # plans: with fewer, all that is far from them looks equally promising to the model
MOST_SWITCHES = 4
WALKS = 4  # for each new plan that is wanted, where few of those nearby are new


class PaidPlans:
    """What plans were worth, by their kept units; under whichever budget they were asked for.

    Args:
        units: Of the dense network [groups].
        prior: Of the model: what is thought of plans before any is paid for.
    """

    def __init__(self, units: IntArray, *, prior: Callable[[IntArray], FloatArray] | None = None) -> None:
        self.model = PlanModel(units, prior=prior)
        self.outcomes: dict[Kept, Outcome] = {}

    @property
    def fitted(self) -> bool:
        """Whether there was enough to fit the model to."""
        return len(self.outcomes) >= LEAST

    @property
    def informed(self) -> bool:
        """Whether the model knows enough to choose; until then a random choice among candidates is as good."""
        return self.model.prior is not None or len(self.outcomes) >= INFORMED

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """The outcomes are known, and the model is fitted to them all."""
        self.outcomes |= {each.plan.kept: each for each in outcomes if np.isfinite(each.reward)}
        if self.fitted:
            self.fit()

    def fit(self) -> None:
        """The model is fitted to all, at least one, however few they are."""
        rewards = np.array([outcome.reward for outcome in self.outcomes.values()])
        self.model.fit(np.array(list(self.outcomes), np.int64), rewards)

    def best(self, count: int, projector: Projector) -> IntArray:
        """Returns the best plans inside a budget, best first [at most count, groups].

        Args:
            count: How many, at most.
            projector: Holds the budget.
        """
        ranked = sorted(self.outcomes.values(), key=lambda outcome: -outcome.reward)
        inside = [outcome.plan.kept for outcome in ranked if projector.budget.meets(np.array(outcome.plan.kept))]
        return np.array(inside[:count], np.int64).reshape(-1, len(projector.units))

    def neighbours(
        self, plans: IntArray, projector: Projector, *, count: int, enough: int, rng: np.random.Generator
    ) -> IntArray:
        """Returns filled plans a few level switches from these in turn that were not paid for [at most count, groups].

        Where fewer than enough of what is drawn are new, walks go on from plans that are not, ATTEMPTS switches at
        most. So there are none only where nothing new is near.

        Args:
            plans: Inside the budget, at least one [plans, groups].
            projector: Holds the budget.
            count: How many are drawn.
            enough: How many of them shall be new.
            rng: Draws the switches.
        """
        switches = [Switch(projector, step) for step in SWITCHED]
        parents = plans[np.arange(count) % len(plans)]
        drawn = switched_neighbours(parents, projector, shares=SWITCHED, most=MOST_SWITCHES, rng=rng)
        fresh: dict[Kept, None] = {kept: None for row in drawn.tolist() if (kept := tuple(row)) not in self.outcomes}
        for index in range(WALKS * enough if len(fresh) < enough else 0):
            parent, switch = plans[index % len(plans)], switches[rng.integers(len(switches))]
            kept = tuple(mutated(parent, switch, self.outcomes, switches=MOST_SWITCHES, rng=rng).tolist())
            if kept not in self.outcomes:
                fresh[kept] = None
        return np.array(list(fresh), np.int64).reshape(-1, len(projector.units))


def log_exhausted(spent: int, limit: int) -> None:
    """Says why a search ends before its evaluations do.

    Args:
        spent: Evaluations so far.
        limit: Evaluations that the search was given.
    """
    log.info("nothing near the best plans is new: the search ends after %d of %d evaluations", spent, limit)
