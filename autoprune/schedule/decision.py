"""The seam of this room: what a schedule sees at a decision point, and what it decides there."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from autoprune.ranges import Count, FinitePositive, Fraction, Natural, Share, Text, check_fields

Allocation = Literal["global", "uniform", "erk"]
Criterion = Literal["magnitude", "random"]
Growth = Literal["gradient", "random"]
Rewind = Literal["none", "initial", "step", "learning_rate"]
Start = Literal["trained", "initial"]
Counted = Literal["macs", "steps"]


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer whose weights can be removed, at a decision point."""

    name: str
    """Its qualified name."""
    weights: int
    """How many it has when dense."""
    density: float
    """Share of them that is kept, in [0, 1]."""
    output: bool
    """Whether it makes the network's outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What a schedule sees at a decision point. Times are shares of the training budget, in [0, 1]."""

    decision: int
    """Decisions before this one."""
    density: float
    """Share of all weights that is kept."""
    target: float
    """The density to be reached."""
    progress: float
    """Share of the training budget that is spent."""
    budget: float
    """The training budget, in steps of the dense network."""
    counted: Counted
    """What spends it: "macs", as many as the masks leave, or "steps"."""
    cost: float
    """What one step spends with the masks as they are, in steps of the dense network."""
    step: int
    """Steps made so far, rewound ones included."""
    loss: float | None
    """Mean training loss of the last steps; None before the first."""
    layers: tuple[LayerState, ...]
    """Layers whose weights can be removed, in order of execution."""

    signals: Mapping[str, float] | None = None
    """Features of signals.FEATURES by name, for a schedule that has `decisions`: how many it makes."""
    fixed: int = 0
    """Weights of layers that stay dense, which count in densities."""

    def kept(self, density: float) -> int:
        """Returns how many weights of `layers` a density of all weights keeps."""
        free = sum(layer.weights for layer in self.layers)
        return max(0, round(density * (free + self.fixed)) - self.fixed)

    def spends(self, density: float) -> float:
        """Returns about what a step spends at this density, in steps of the dense network."""
        return density if self.counted == "macs" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What happens at a decision point, in this order: weights go, others grow, the network is rewound, it trains on.

    >>> Decision(density=0.5, steps=100).rewind
    'none'
    """

    density: float | Mapping[str, float]
    """Share of all weights that is kept from here on, or of each layer's by name. Never below the target."""
    steps: Count | None = None
    """Optimizer steps until the next decision; None: until `until`."""
    until: Share = 1.0
    """The next decision comes at the latest when this share of the training budget is spent."""
    allocation: Allocation = "global"
    """How one density is shared: by one threshold for all weights, alike by all layers, or by Erdős–Rényi's rule."""
    criterion: Criterion = "magnitude"
    """Which weights go: the smallest, or any."""
    regrow: Fraction = 0.0
    """Share of the kept weights that is exchanged for others."""
    grow_by: Growth = "gradient"
    """Which weights grow: those of the largest gradients, or any."""
    rewind: Rewind = "none"
    """What goes back: nothing; weights, optimizer and learning rate to initialisation or to `rewind_step`; or the
    learning rate alone to that of `rewind_step`."""
    rewind_step: Natural = 0
    """The optimizer step that is rewound to."""
    save_steps: tuple[Natural, ...] = ()
    """Steps whose weights are kept in memory and on disk, to be rewound to; those of step 0 always are."""
    cycle: bool = False
    """The learning-rate curve runs once over this interval instead of over the whole budget; rewinding implies it."""

    @property
    def density_of_all(self) -> float:
        """Returns the one density. Raises TypeError where each layer has its own."""
        if isinstance(self.density, Mapping):
            raise TypeError("each layer has a density of its own")
        return self.density

    def __post_init__(self) -> None:
        check_fields(self, "a schedule's decision")
        densities = self.density.values() if isinstance(self.density, Mapping) else (self.density,)
        wrong = [value for value in densities if not (math.isfinite(value) and 0 <= value <= 1)]
        if wrong:
            raise ValueError(f"a schedule decides on densities in [0, 1], got {wrong[0]}")


def density_after(share: float, *, density: float, target: float) -> float:
    """Returns the density after so much of the way to the target, in logarithms.

    Args:
        share: In [0, 1]: 0 stays, 1 is at the target exactly.
        density: Where the way begins.
        target: Where it ends.
    """
    return target if share >= 1 else float(density * (target / density) ** share)


class Schedule(Protocol):
    """(state at a decision point) → what to do there; any function of one argument is one.

    It is asked before the first step and after every interval until the training budget is spent. It has no state of
    its own, so that a run goes on from a file: all that it goes by is in the state.
    """

    def __call__(self, state: TrainingState) -> Decision: ...


def check_schedule(schedule: Schedule) -> None:
    """Returns nothing of a function that can be asked with a state alone.

    Args:
        schedule: What is to be asked.

    Raises:
        ValueError: It cannot; a function that makes schedules, such as `cubic`, has to be called first.
    """
    name = getattr(schedule, "__name__", repr(schedule))
    if not callable(schedule):
        raise ValueError(f"a schedule is a function (state) -> Decision, such as cubic(), got {schedule!r}")
    try:
        inspect.signature(schedule).bind(None)
    except TypeError:
        raise ValueError(
            f"a schedule is a function of the state alone, and {name} is not; if it makes schedules, call it: {name}()"
        ) from None
    except ValueError:  # of a built-in one nothing is to be read
        return


def decision_of(schedule: Schedule, state: TrainingState) -> Decision:
    """Returns what the schedule decides.

    Args:
        schedule: It is asked once.
        state: At this decision point.

    Raises:
        ValueError: It returns something else.
    """
    decision = schedule(state)
    if not isinstance(decision, Decision):
        name = getattr(schedule, "__name__", type(schedule).__name__)
        raise ValueError(f"a schedule returns a Decision, and {name} returned {decision!r}")
    return decision


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningGoal:
    """What is to be reached, and with how much training."""

    density: Share | None = None
    """Share of all weights of convolutions and linear layers that is kept in the end, met to one weight; None: that of
    the pattern N:M."""
    steps: FinitePositive
    """The training budget, in steps of the dense network."""
    counted: Counted = "macs"
    """"macs": a step spends what its masks leave of the dense network's MACs. "steps": every step spends 1."""
    granularity: str = "weight"
    """"weight", "channel" (removed for real at the end), or N:M such as "2:4"."""
    start: Start = "trained"
    """The weights that training begins at: the task's, or "initial" ones, drawn by the seed."""
    keep: frozenset[Text] = field(default_factory=frozenset)
    """Layers that stay dense, beside those of `task.keep`; their weights count in the density."""

    def __post_init__(self) -> None:
        check_fields(self, "goal")
        if self.steps < 1:
            raise ValueError(f"a training budget is at least 1 step of the dense network, got steps={self.steps}")
