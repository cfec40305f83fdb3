"""Looks for the structure of every architecture, prunes it to half of its MACs, and writes down what came of it."""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.cost.counted import CostSettings, Countable
from autoprune.structure.edit import masked, shrink
from autoprune.structure.examples import Example, varied
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.structure.verify import alive
from autoprune.task.task import plain_forward
from experiments.coverage.architectures import OWN, Architecture
from experiments.coverage.further import FURTHER
from experiments.coverage.published import PUBLISHED
from experiments.origin import origin
from experiments.readme import table as markdown_table
from experiments.readme import write_between

FOLDER = Path(__file__).parent
PLANS = 6  # random ones that masked and shrunk networks are compared on


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one architecture."""

    name: str
    groups: int = 0
    handled: bool = False
    """Half of the MACs can be removed, and masked and shrunk networks agree."""
    inexact: bool = False
    """Half of the MACs can be removed with groups that a norm normalises over (structure.inexact=true)."""
    share: float = 0.0
    """Of the MACs, those in layers whose outputs some group takes from."""
    worst: float = 0.0
    """Largest difference of a masked and a shrunk network, over the largest value of that output."""
    seconds: float = 0.0
    """CPU time of finding the structure."""
    reason: str = ""


def measured(name: str, architecture: Architecture) -> Row:
    """The architecture with the groups that are exact; where they are too few, also with the others."""
    torch.manual_seed(0)
    network, inputs = architecture.build().eval(), architecture.inputs()
    row = _exact(name, network, inputs)
    if row.handled:
        return replace(row, inexact=True)
    try:
        structure = find_structure(network, inputs, inexact=True)
        return replace(row, inexact=half_can_go(network, structure, inputs))
    except ValueError:
        return row


def _exact(name: str, network: nn.Module, inputs: Any) -> Row:
    start = time.process_time()
    try:
        structure = find_structure(network, inputs)
    except ValueError as error:
        return Row(name, seconds=time.process_time() - start, reason=str(error)[:300])
    seconds = time.process_time() - start
    worst, reaches = largest_difference(network, structure, inputs), half_can_go(network, structure, inputs)
    reason = "" if reaches else f"half of the MACs cannot go; {structure.unprunable}"[:300]
    share, handled = output_share(structure), reaches and worst < 1e-3
    return Row(name, len(structure.groups), handled, False, share, worst, seconds, reason)


def output_share(structure: Structure) -> float:
    """The share of the MACs of convolutions and linear layers in those whose outputs some group takes from."""
    writers = {m.layer for group in structure.groups for m in group.members if m.axis != "in"}
    macs = {
        layer.name: layer.outputs * layer.inputs * layer.kernel * layer.positions
        for layer in structure.layers
        if layer.kind in ("conv", "linear")
    }
    return sum(count for name, count in macs.items() if name in writers) / max(1, sum(macs.values()))


def largest_difference(network: nn.Module, structure: Structure, inputs: Any) -> float:
    rng, example, worst = np.random.default_rng(0), varied(Example(inputs)), 0.0
    with alive(network), torch.no_grad():
        for trial in range(PLANS):
            kept = [g.levels[0] if trial == 0 else int(rng.choice(g.levels)) for g in structure.groups]
            ranking = {g.name: torch.from_numpy(rng.permutation(g.units)) for g in structure.groups}
            plan = structure.plan(np.array(kept))
            with masked(network, structure, plan, ranking):
                expected = {name: tensor.clone() for name, tensor in example.outputs(network).items()}
            for name, output in example.outputs(shrink(network, structure, plan, ranking)).items():
                size = max(float(expected[name].abs().max()), 1e-12)
                difference = float((output - expected[name]).abs().max()) / size
                worst = difference if not difference <= worst else worst  # NaN is worse than anything
    return worst


def half_can_go(network: nn.Module, structure: Structure, inputs: Any) -> bool:
    costs = Countable(network, structure, inputs, forward=plain_forward, settings=CostSettings())
    macs = costs["macs"]
    return bool(macs(structure.floor[None])[0] <= 0.5 * macs(structure.units[None])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures; all without any")
    options = parser.parse_args()
    torch.set_num_threads(1)
    listed = {**OWN, **FURTHER, **PUBLISHED}
    rows = []
    for name in options.names or listed:
        row = measured(name, listed[name])
        verdict = "whole" if row.handled else "with inexact groups" if row.inexact else "NOT"
        print(
            f"{name}: {verdict}, {row.groups} groups, {row.share:.0%}, {row.worst:.1e}, {row.seconds:.1f} s", flush=True
        )
        if row.reason:
            print(f"    {row.reason}", flush=True)
        rows.append(row)
    if not options.names:
        record = {**origin("experiments/coverage/run"), "rows": [asdict(row) for row in rows]}
        (FOLDER / "coverage.json").write_text(json.dumps(record, indent=1) + "\n")
        write_between(FOLDER / "README.md", table(rows), name="coverage")


def table(rows: list[Row]) -> str:
    """The figures over all architectures, and a line for each."""
    whole = [row for row in rows if row.handled]
    more = sum(row.inexact for row in rows)
    shares = median(row.share for row in whole)
    lines = [
        f"- {len(whole)} of {len(rows)} architectures are handled whole ({len(whole) / len(rows):.0%}): half of "
        "the MACs can be removed, and masked and shrunk networks agree on every output.",
        f"- {more} of {len(rows)} ({more / len(rows):.0%}) with `structure.inexact=true`: also what norms see whole.",
        f"- MACs in layers whose outputs some group takes from: median {shares:.0%} of those that are handled.",
        f"- CPU time of finding the structure: median {median(row.seconds for row in rows):.2f} s, at most "
        f"{max(row.seconds for row in rows):.1f} s.",
        "",
    ]
    titles = ("architecture", "whole", "with inexact groups", "groups", "share of the MACs", "masked − shrunk", "CPU s")
    return "\n".join([*lines, *markdown_table([*titles, ""], map(_cells, rows))]) + "\n"


def _cells(row: Row) -> list[str]:
    numbers = [str(row.groups), f"{row.share:.0%}", f"{row.worst:.0e}", f"{row.seconds:.1f}"]
    return [row.name, _yes(row.handled), _yes(row.inexact), *numbers, row.reason.replace("|", "/")[:120]]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
