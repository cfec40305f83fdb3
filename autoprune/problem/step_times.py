"""How long the steps take by which a task is made ready, and which of them is being taken."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from autoprune.machine_cache import release_freed_memory

P = ParamSpec("P")
T = TypeVar("T")

OnStep = Callable[[str, int, int], None]  # (the step's name, done, of)


class StepTimes:
    """Takes steps, says which one begins, and keeps the seconds of each.

    >>> times = StepTimes(lambda step, done, of: print(f"{step} {done}/{of}"))
    >>> times.take("ranking", sorted, [2, 1])
    ranking 0/1
    [1, 2]
    >>> list(times.seconds)
    ['ranking']
    """

    def __init__(self, on_step: OnStep) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step

    def take(self, step: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the function, and returns what it returns; its wall time stands in `seconds`, its memory is given back.

        Args:
            step: The step's name.
            function: What is done.
            *args: Its arguments.
            **kwargs: Its arguments by name.
        """
        self._on_step(step, 0, 1)
        begun = time.perf_counter()
        result = function(*args, **kwargs)
        release_freed_memory()
        self.seconds[step] = round(time.perf_counter() - begun, 3)
        return result
