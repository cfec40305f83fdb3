"""`autoprune/Schedule-v0`: every step is an interval of training; the agent says how far to prune before it."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from autoprune.ranges import Count
from autoprune.schedule.decision import Decision
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.training_env import EpisodeSettings, TrainingEnv
from autoprune.task.task import Task

MOST_REGROWN = 0.5  # of the kept weights, by an action of 1


class ScheduleEnv(TrainingEnv):
    """`gym.make("autoprune/Schedule-v0", task="digits", density=0.05, steps=200)`

    An action in [−1, 1] is how far to prune before the next interval, from nothing (−1) to the target (1), in
    logarithms of the density; then what share of the kept weights is exchanged for those with the largest gradients,
    from none to half. With `per_layer` there is a number for each layer before it. With `levels` actions are whole
    numbers: so many evenly spaced ways, and nothing is exchanged. Intervals are equal shares of the training budget.
    """

    def __init__(
        self,
        *,
        task: str | Task,
        per_layer: bool = False,
        levels: Count | None = None,
        recipe: TrainingRecipe | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Prepares the training.

        Args:
            task: A shipped task's name, or a Task with labels.
            per_layer: Each layer has a density of its own.
            levels: Numbers of a discrete action, at least 2; None: actions are continuous.
            recipe: Optimizer and learning rate; None: the defaults.
            render_mode: None, "ansi" or "rgb_array".
            settings: Fields of EpisodeSettings.

        Raises:
            ValueError: Options do not fit together, or the density or the budget is impossible.
        """
        episodes = EpisodeSettings(**settings)
        if levels is not None and (levels < 2 or per_layer):
            raise ValueError(f"levels is at least 2 and goes without per_layer, got levels={levels}")
        if per_layer and episodes.granularity != "weight":
            raise ValueError(f"per_layer needs granularity=weight, got {episodes.granularity}")
        space: Box | Discrete = Box(-1, 1, (1,), np.float32) if levels is None else Discrete(levels)
        super().__init__(task, episodes, action_space=space, recipe=recipe, render_mode=render_mode)
        self.per_layer, self.levels = per_layer, levels
        self.free = [layer.name for layer in self.pruning.masking.layers if not layer.fixed]
        if levels is None and episodes.granularity == "weight":
            self.actions = self.action_space = Box(-1, 1, ((len(self.free) if per_layer else 1) + 1,), np.float32)

    def _decision(self, action: Any) -> tuple[Decision, Any]:
        until = (len(self._path) + 1) / self.settings.decisions
        if self.levels is not None:
            return Decision(density=self.next_density(action / (self.levels - 1)), until=until), action
        shares = (np.asarray(action, float) + 1) / 2
        if self.settings.granularity != "weight":
            return Decision(density=self.next_density(float(shares[0])), until=until), action
        regrow = MOST_REGROWN * float(shares[-1])
        if not self.per_layer:
            return Decision(density=self.next_density(float(shares[0])), regrow=regrow, until=until), action
        whole = self.next_density(1.0) / self.pruning.density
        densities = {
            layer.name: layer.density * whole**share
            for layer, share in zip(self.pruning.layers, shares[:-1].tolist(), strict=True)
        }
        return Decision(density=densities, regrow=regrow, until=until), action
