"""The command: cells that are missing are made, and results.json and the README's tables are made of all there are."""

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoprune.files import atomic_write
from autoprune.task.fashion_mnist import fashion_full, fashion_subset
from autoprune.task.lenets import LENETS
from autoprune.task.shipped import fashion_resnet20
from autoprune.task.task import Roles, Task
from experiments.cells import kept, pack, unpack
from experiments.deep_compression import language_model, lenets, shipped_resnet, tables
from experiments.deep_compression.figures import chosen_setting, figures, pair_figures, size_figures, summaries
from experiments.deep_compression.file_sizes import decoding_cell, prediction_cell
from experiments.deep_compression.pairs import METHODS, pair_cell
from experiments.origin import ROOT, origin
from experiments.readme import write_between

HERE = Path(__file__).parent
ARCHIVE = HERE / "cells.jsonl.gz"
CELLS = ROOT / "runs" / "deep_compression"
SETTINGS = {**lenets.SETTINGS, "fashion_resnet20": shipped_resnet.SETTINGS}
PLAN_SEED = 1000  # of random plans, none of which the prediction was made with
PREDICTED = {"lenet_300_100": LENETS["lenet_300_100"], "fashion_resnet20": lambda **_: fashion_resnet20()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/deep_compression/run", description=__doc__)
    parser.add_argument(
        "--parts", nargs="*", choices=list(PARTS), default=[each for each in PARTS if each != "language"]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=list(LENETS), default=list(LENETS), help="of the part lenets")
    parser.add_argument("--data", help="a folder of Fashion-MNIST's four files; the shipped subset without it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("autoprune").setLevel(logging.WARNING)
    unpack(ARCHIVE, CELLS)
    roles = fashion_full(folder=asked.data) if asked.data else fashion_subset()
    for part in asked.parts:
        PARTS[part](roles, asked)
    pack(CELLS, ARCHIVE)
    collect(images=len(roles.train))


def _lenets(roles: Roles, asked: argparse.Namespace) -> None:
    lenets.run_lenets(asked.networks, seeds=asked.seeds, roles=roles, cells=CELLS / "lenets")


def _sizes(roles: Roles, asked: argparse.Namespace) -> None:
    for name, build in PREDICTED.items():
        kept(CELLS / "sizes", name, partial(_predicted, build, roles))
    kept(CELLS / "decoding", "seconds", decoding_cell)


def _predicted(build: Callable[..., Task], roles: Roles) -> Any:
    return prediction_cell(build(roles=roles, seed=lenets.FIRST_SEED), seed=PLAN_SEED)


def _pairs(roles: Roles, asked: argparse.Namespace) -> None:
    for seed in range(lenets.FIRST_SEED, lenets.FIRST_SEED + asked.seeds):
        for method in METHODS:

            def make(seed: int = seed, method: str = method) -> Any:
                return pair_cell(LENETS["lenet_300_100"](roles=roles, seed=seed), method, seed=seed)

            kept(CELLS / "pairs", f"{method}-{seed}", make)


def _resnet(roles: Roles, asked: argparse.Namespace) -> None:
    for seed in range(lenets.FIRST_SEED, lenets.FIRST_SEED + asked.seeds):
        kept(CELLS / "resnet", str(seed), partial(shipped_resnet.resnet_cell, roles, seed=seed))


def _language(roles: Roles, asked: argparse.Namespace) -> None:
    for seed in range(lenets.FIRST_SEED, lenets.FIRST_SEED + asked.seeds):
        for method in language_model.METHODS:
            make = partial(language_model.language_cell, method, seed=seed)
            kept(CELLS / "language", f"{method.replace(' ', '_')}-{seed}", make)


PARTS: Mapping[str, Callable[[Roles, argparse.Namespace], None]] = {
    "lenets": _lenets,
    "sizes": _sizes,
    "pairs": _pairs,
    "resnet": _resnet,
    "language": _language,
}


def collect(*, images: int) -> None:
    """results.json holds every cell and the figures of the README, whose tables are written.

    Args:
        images: Of the train role.
    """
    rows, predicted, pairs = _kept("lenets"), _kept("sizes"), _kept("pairs")
    settings, resnets = summaries(rows), _kept("resnet")
    chosen = {name: chosen_setting(settings, name) for name in LENETS}
    measured: dict[str, Any] = {}
    for name, setting in chosen.items():
        if setting is not None:
            same = ("network", "density", "bits")
            measured[name] = figures([row for row in rows if all(row[key] == setting[key] for key in same)])
    if resnets:
        measured["fashion_resnet20"] = figures(resnets)
    content = {
        "origin": origin("experiments/deep_compression/run"),
        "settings": {
            **{n: asdict(each) for n, each in lenets.SETTINGS.items()},
            "fashion_resnet20": asdict(shipped_resnet.SETTINGS),
        },
        "train_images": images,
        "figures": measured,
        "settings_tried": settings,
        "sizes": {each["network"]: size_figures(each["plans"]) for each in predicted},
        "decoding": [row for each in _kept("decoding") for row in each],
        "pairs": pair_figures(pairs),
        "cells": [{k: v for k, v in row.items() if k != "layers"} for row in [*rows, *resnets]],
        "plans": predicted,
        "pair_cells": pairs,
        "language": _kept("language"),
    }
    with atomic_write(HERE / "results.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    write_between(HERE / "README.md", tables.measured(content), name="measured")
    print(tables.measured(content))


def _kept(part: str) -> list[Any]:
    """What is kept of a part."""
    return [json.loads(path.read_text()) for path in sorted((CELLS / part).glob("*.json"))]
