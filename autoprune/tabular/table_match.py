"""Whether a table answers for what is asked: the network, the data and the settings that it was judged with."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.tabular.table import Table
from autoprune.task.task import Role


def check_match(table: Table, candidates: Candidates, settings: EvaluationSettings) -> None:
    """The table's answers are those of live judging.

    Args:
        table: Every plan of a network, judged.
        candidates: The network, ranked and repaired as it is now.
        settings: How it would be judged live.

    Raises:
        ValueError: They are not; the sentence says all that is different.
    """
    wrong = [*_of_network(table, candidates), *_of_settings(table, settings)]
    if settings.training is not None:
        wrong.append("evaluation.training trains every network before it is judged, and the table's were not trained")
    if wrong:
        raise ValueError(
            f"the table {candidates.task.table} does not answer for this: {'; '.join(wrong)}. Take the table's "
            "settings, or task.table=null to judge plans live"
        )


def circumstances(candidates: Candidates, held_out: Role) -> dict[str, Any]:
    """What judged numbers depend on, as JSON values that are the same with any version of Python.

    Args:
        candidates: What makes a plan's network.
        held_out: Samples that no reward sees.
    """
    task = candidates.task
    return {
        "task": task.name,
        "weights": _digest(dict(task.model.state_dict())),
        "ranking": _digest(candidates.ranking),
        "repair": _set(asdict(candidates.repair)),
        "metric": _name(task.metric),
        "loss": _name(task.loss),
        "forward": _name(task.forward),
        "calibration": _role(task.data.calibration),
        "proxy": _role(candidates.proxy),
        "held_out": _role(held_out),
    }


MEANS = {
    "weights": "the network's weights are not those that were judged",
    "ranking": "importance puts units in another order than {criterion}, which the table was made with",
    "repair": "repair is {here}, the table's {there}",
    "metric": "the metric is {here}, the table's {there}",
    "loss": "the loss is {here}, the table's {there}",
    "forward": "the network is called by {here}, the table's by {there}",
    "calibration": "the calibration samples are others",
    "proxy": "the proxy is {here[samples]} samples, the table's {there[samples]} (evaluation.proxy_samples, data)",
}


def _of_network(table: Table, candidates: Candidates) -> list[str]:
    groups = candidates.structure.groups
    if tuple(group.name for group in groups) != table.groups:
        return [f"the groups are {[group.name for group in groups]}, the table's {list(table.groups)} (task.keep)"]
    wrong = [
        f"{group.name} may keep {list(group.levels)} of {group.units} units, in the table {levels.tolist()} of {units} "
        "(structure.round_to, structure.min_units)"
        for group, units, levels in zip(groups, table.units, table.levels, strict=True)
        if (group.units, group.levels) != (units, tuple(levels.tolist()))
    ]
    here = circumstances(candidates, candidates.proxy)
    return wrong[:1] + [
        text.format(here=here[what], there=table.card[what], criterion=table.card["criterion"])
        for what, text in MEANS.items()
        if here[what] != table.card[what]
    ]


def _of_settings(table: Table, settings: EvaluationSettings) -> list[str]:
    wrong = [
        f"evaluation.{what} is {here}, the table's {table.card[what]}"
        for what, here in (("precision", settings.precision), ("batch_size", settings.batch_size))
        if here not in ("auto", table.card[what])
    ]
    if settings.workers:
        wrong.append(f"evaluation.workers is {settings.workers}, and there is nothing for them to do")
    return wrong


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None, so that an option that is new says nothing of what was judged without it."""
    return {name: value for name, value in settings.items() if value is not None}


def _role(role: Role) -> dict[str, Any]:
    return {"samples": len(role), "digest": role.digest}


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]
