"""`autoprune/Rounds-v0`: every step is a round of remove, rewind and train, as lottery tickets are found."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from autoprune.ranges import Natural
from autoprune.schedule.decision import Decision, Rewind
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.training_env import EpisodeSettings, TrainingEnv
from autoprune.task.task import Task

REWINDS: tuple[Rewind, ...] = ("none", "initial", "step", "learning_rate")


class RoundsEnv(TrainingEnv):
    """`gym.make("autoprune/Rounds-v0", task="digits", density=0.05, steps=200, decisions=4)`

    An action has three numbers in [−1, 1]: how far to prune, from nothing to the target, in logarithms of the density;
    what share of the training that is left to spend on this round, of which every later round keeps a step; and what is
    rewound, by quarters of the range: nothing, the weights to initialisation, the weights to `rewind_step`, the
    learning rate alone. The last round prunes to the target and spends what is left.
    """

    def __init__(
        self,
        *,
        task: str | Task,
        rewind_step: Natural | None = None,
        recipe: TrainingRecipe | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Prepares the training.

        Args:
            task: A shipped task's name, or a Task with labels.
            rewind_step: Whose weights are kept to be rewound to, as soon as they were reached; before, nothing is
                rewound. None: 2 % of the training budget, at least 1.
            recipe: Optimizer and learning rate; None: the defaults.
            render_mode: None, "ansi" or "rgb_array".
            settings: Fields of EpisodeSettings.
        """
        episodes = EpisodeSettings(**settings)
        space = Box(-1, 1, (3,), np.float32)
        super().__init__(task, episodes, action_space=space, recipe=recipe, render_mode=render_mode)
        self.rewind_step = max(1, round(episodes.steps / 50)) if rewind_step is None else rewind_step

    def _decision(self, action: Any) -> tuple[Decision, Any]:
        share, spend, kind = ((np.asarray(action, float) + 1) / 2).tolist()
        number, rounds = len(self._path), self.settings.decisions
        rewind = REWINDS[min(3, int(kind * 4))]
        if number == 0 or (rewind == "step" and self.rewind_step not in self.pruning.training.points):
            rewind = "none"  # there is nothing to go back to yet
        executed = np.array(action, np.float32)
        executed[2] = (REWINDS.index(rewind) + 0.5) / 2 - 1
        progress = self.pruning.progress
        if number == rounds - 1:
            executed[:2] = 1.0
            density, until = self.next_density(1.0), 1.0
        else:
            one = 1 / self.settings.steps  # a dense step's share of the budget
            later = one * (rounds - 1 - number)
            density = self.next_density(share)
            until = min(1 - later, progress + max(one, spend * (1 - later - progress)))
            executed[1] = 2 * (until - progress) / max(1 - later - progress, one) - 1
        decision = Decision(
            density=density,
            until=max(until, progress + 1e-6),
            rewind=rewind,
            rewind_step=self.rewind_step if rewind == "step" else 0,
            save_steps=(self.rewind_step,) if number == 0 else (),
            cycle=True,
        )
        return decision, np.clip(executed, -1, 1)
