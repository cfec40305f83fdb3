"""What a search is asked: the settings of a problem, and the only place where their defaults stand.

conf/config.yaml lists the same defaults, because a person reads them there and Hydra only overrides what is listed. A
test holds the two equal; what is changed here is changed there.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from autoprune.cost.counted import CostSettings
from autoprune.device.device import Device
from autoprune.evaluation import judge, reward
from autoprune.evaluation.judge import Score
from autoprune.evaluation.reward import Reward
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.criterion import Importance
from autoprune.importance.default_criterion import default_criterion
from autoprune.importance.magnitude import magnitude
from autoprune.ranges import Count, OneOf, Positive, Text, check_fields
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import AutomaticRepair, Repair
from autoprune.structure.code_bits import MOST_BITS
from autoprune.structure.uniform_groups import UniformKind

CODE_BITS = tuple(range(1, MOST_BITS + 1))
DEFAULT_IMPORTANCE: Importance = partial(
    default_criterion,
    transformers=partial(activation_norm, batch_size=64),
    others=partial(magnitude, order=1, read=False),
)
_SOLVED = LeastSquares(ridge=0.001, rows=8192)
DEFAULT_REPAIR = AutomaticRepair(tuple(Repair(batch_norm=share, least_squares=_SOLVED) for share in (1.0, 0.5, 0.0)))


@dataclass(frozen=True, slots=True)
class StructureSettings:
    """What is looked for in a network, and how finely it is cut."""

    prune: tuple[Text, ...] | None = None
    """Kinds of groups of a transformer, such as `heads` or `neurons`; None for the task's."""
    round_to: Count | Literal["auto", "device"] = "auto"
    """Kept units are a multiple of it; "device": they are steps of the device's latency; "auto": the device's steps
    where a device is given, else multiples of 8 channels or neurons, or of fewer where a group is small."""
    min_units: Count = 1
    """The fewest units that a group keeps, at least 1."""
    inexact: bool = False
    """Also groups that a LayerNorm or the like normalises over, where removing units is not quite masking them."""
    bits: tuple[Annotated[int, OneOf(CODE_BITS)], ...] | None = None
    """Bits that the codes of a matrix's weights may have, 1 to 8, as a decision beside what is pruned of it; None:
    weights stay as they are."""
    time_limit_s: Positive = 300.0
    """How long the structure is looked for, in seconds."""
    uniform: tuple[UniformKind, ...] = ()
    """Kinds of groups, of heads, queries and neurons, of which all blocks of a transformer keep equally many."""

    def __post_init__(self) -> None:
        check_fields(self, "structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSpec:
    """How plans for a task are found, judged and bounded.

    >>> ProblemSpec(budget="macs:0.5").structure.min_units
    1
    """

    budget: str | tuple[str, ...] | None = None
    """`cost:amount`, several of them to be met together, or None for the one that the task suggests."""
    importance: Importance = DEFAULT_IMPORTANCE
    """The criterion that orders the units of every group."""
    repair: Repair | AutomaticRepair = DEFAULT_REPAIR
    """What is done for a pruned network without a gradient step, before it is judged and when it is handed out."""
    score: Score = judge.kl
    """What is made of a network's metrics; higher is better."""
    reward: Reward = reward.under_budget
    """What a search maximises: how good a plan is. What it costs to exceed the budget is the constraint's."""
    structure: StructureSettings = field(default_factory=StructureSettings)
    """Which groups there are."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How plans are judged."""
    costs: CostSettings = field(default_factory=CostSettings)
    """How those costs are counted that not every record has."""
    device: Device | None = None
    """Where networks will run, whose latency is a cost too; None for nowhere in particular."""

    def __post_init__(self) -> None:
        check_fields(self, "")
