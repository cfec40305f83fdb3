"""What each command may be told: its own settings, with their types. What parts may be told their signatures say.

A new setting is a line here and a line in the command's file in conf/.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Ge
from pydantic import AfterValidator, BeforeValidator

from autoprune.cli.validation import FieldsOf, Rules, Section
from autoprune.ranges import Count, DeviceName, Fraction, Natural, NonNegative, Positive, Seed, Share, Text, Threads


def _budget(text: str) -> str:
    from autoprune.cost.budget import read_amount

    for each in text.split(","):
        read_amount(each)
    return text


def _budget_range(text: str) -> str:
    from autoprune.cost.budget_range import BudgetRange

    BudgetRange.parse(text)
    return text


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("an empty list names none; give one, or null where that is a choice")
    return values


def _weights(text: Any) -> str:
    cost, _, density = str(text).partition(":")
    if cost != "weights" or not re.fullmatch(r"0?\.\d+|1(\.0*)?", density) or float(density) <= 0:
        raise ValueError(f"it is written weights:DENSITY, with a density in (0, 1], such as weights:0.05; got {text!r}")
    return str(text)


def _training(text: Any) -> str:
    if not re.fullmatch(r"\d*\.?\d+x", str(text)) or float(text[:-1]) <= 0:
        raise ValueError(f"it is a multiple of the usual training, such as 0.25x or 2x; got {text!r}")
    return str(text)


Budget = Annotated[str, AfterValidator(_budget)]
Budgets = Budget | Annotated[tuple[Budget, ...], AfterValidator(_not_empty)]
Range = Annotated[str, AfterValidator(_budget_range)]


Structure = Annotated[Any, FieldsOf("autoprune.problem.spec.StructureSettings")]


class Described(Protocol):
    """An object that a `_target_` describes; a file of the group in conf/ does."""


class SearchSettings(Section):
    """`autoprune search` and `autoprune apply`."""

    task: Described
    data: Described | None = None
    device: Described | None = None
    importance: Described
    repair: Described
    score: Described
    reward: Described
    constraint: Described
    agent: Described
    recover: Described
    quantize: Described
    tracking: Described
    costs: Described
    evaluation: Described
    structure: Structure
    seed: Seed
    budget: Budgets | None
    policy: Text | None
    evaluations: Count
    baselines: tuple[Literal["uniform", "sensitivity"], ...]
    time_limit_s: Positive | None = None
    threads: Threads | None


class VariantSettings(Section):
    """Networks that are trained on the spot."""

    families: tuple[Literal["plain", "residual", "depthwise", "dense"], ...]
    images: tuple[Literal["digits", "fashion"], ...]
    numbers: Natural


class HeldOutSettings(Section):
    """Networks that a policy is tried on."""

    tasks: tuple[Text | Described, ...]
    variants: VariantSettings
    budgets: tuple[Budget, ...]
    evaluations: Count


class TrainSettings(Section):
    """`autoprune train`."""

    agent: Described
    device: Described | None = None
    importance: Described
    repair: Described
    score: Described
    reward: Described
    tracking: Described
    evaluation: Described
    structure: Structure
    seed: Seed
    policy: None  # training begins anew
    threads: Threads | None
    tasks: tuple[Text | Described, ...]
    variants: VariantSettings
    budget: Range | Annotated[tuple[Range, ...], AfterValidator(_not_empty)]
    settings: Count
    evaluations: Count
    held_out: HeldOutSettings


class ProfileSettings(Section):
    """`autoprune profile`."""

    task: Described
    data: Described | None = None
    device: Described
    plans: Count
    checked: Count


class DefaultSettings(Section):
    """What searches use so far."""

    repair: Text
    score: Text


class LevelSettings(Section):
    """A budget that a study of fidelity is made at."""

    budget: Budgets | None
    plans: Annotated[int, Ge(2)]  # which are ranked
    repeated: Natural


class FidelitySettings(LevelSettings):
    """`autoprune fidelity`."""

    task: Described
    data: Described | None = None
    importance: Described
    reward: Described
    recover: Described
    evaluation: Described
    structure: Structure
    repairs: Mapping[str, Described]
    scores: Mapping[str, Described]
    trained: Mapping[str, Described]
    seed: Seed
    threads: Threads | None
    default: DefaultSettings
    start: Text
    second: LevelSettings | None
    seeds: Count
    lengths: Annotated[tuple[Natural, ...], AfterValidator(_not_empty)]


class TrainPrunedSettings(Section):
    """`autoprune train-pruned`."""

    task: Described
    data: Described | None = None
    schedule: Described
    quantize: Described
    tracking: Described
    recipe: Described
    seed: Seed
    threads: Threads | None
    budget: Annotated[str, BeforeValidator(_weights)] | None
    granularity: Text
    start: Literal["trained", "initial"]
    keep: tuple[Text, ...]
    steps: Count
    training: Annotated[str, BeforeValidator(_training)]
    counted: Literal["macs", "steps"]


class TicketsSettings(Section):
    """`autoprune tickets`."""

    task: Described
    data: Described | None = None
    tracking: Described
    recipe: Described
    seed: Seed
    threads: Threads | None
    keep: tuple[Text, ...]
    rounds: Count
    share: Share
    steps: Count
    rewind: Literal["none", "initial", "step", "learning_rate"]
    rewind_step: Natural
    allocation: Literal["global", "uniform"]
    output_rate: Share
    controls: tuple[Literal["reinitialised", "random", "one_shot"], ...]
    control_rounds: tuple[Count, ...] | None
    check_every: Count


RANGES = {  # of Stable-Baselines3's hyperparameters, which it checks late or not at all
    "learning_rate": Positive,
    "gamma": Fraction,
    "gae_lambda": Fraction,
    "tau": Fraction,
    "batch_size": Count,
    "n_epochs": Count,
    "policy_delay": Count,
    "max_grad_norm": Positive,
    "target_policy_noise": NonNegative,
    "target_noise_clip": NonNegative,
    "top_quantiles_to_drop_per_net": Natural,
    "target_update_interval": Count,
    "exploration_fraction": Fraction,
    "exploration_initial_eps": Fraction,
    "exploration_final_eps": Fraction,
}


def _hyperparameters(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The types of an algorithm's hyperparameters."""
    from autoprune.agent.agent_spec import ALGORITHMS, DECIDED
    from autoprune.cli.validation import type_hints

    algorithm = ALGORITHMS.get(str(agent.get("algorithm")))
    if algorithm is None:
        return dict.fromkeys(agent["hyperparameters"], Any)  # what the algorithm may be is another sentence
    names = set(inspect.signature(algorithm.__init__).parameters) - {"self", *DECIDED}
    hints = type_hints(algorithm)
    return {name: RANGES.get(name, hints.get(name, Any)) for name in sorted(names)}


RULES = Rules(
    hints={
        "evaluation.store": Literal["shared", "run"] | None,
        "task.keep": tuple[Text, ...] | None,
        "task.device": DeviceName | None,
        "tasks.*.keep": tuple[Text, ...] | None,
        "tasks.*.device": DeviceName | None,
        "held_out.tasks.*.keep": tuple[Text, ...] | None,
        "held_out.tasks.*.device": DeviceName | None,
    },
    at_run_time={
        "importance": {"given", "model", "structure", "role", "loss", "forward", "generator"},  # or as in version 0.1
        "score": {"metrics"},
        "scores": {"metrics"},
        "reward": {"metrics", "score", "cost", "budget"},
        "agent": {"problem", "rng"},
        "recover": {"network", "task", "teacher", "generator", "on_step"},
        "quantize": {"network", "task", "generator"},
        "tracking": {"run"},
    },
    mappings={"autoprune.agent.agent_spec.AgentSpec": ("hyperparameters", _hyperparameters)},
)
