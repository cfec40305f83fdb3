"""The command: predicts what random plans of a decoder take for a token, and measures them beside the dense network."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.device.agreement import agreement
from autoprune.device.decode_latency import decode_latency, token_seconds
from autoprune.machine_cache import MeasurementCache
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.folders import smollm2_folder
from experiments.latency.table import percent
from experiments.origin import ROOT, origin
from experiments.readme import table, write_between

HERE = Path(__file__).resolve().parent
KINDS = (("heads", "neurons"), ("attention", "ffn"))
CONTEXT = 128
PASSES = 3  # of each plan, the dense network beside it


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/latency/decode", description=__doc__)
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--model", type=Path, default=None, help="a folder of transformers; SmolLM2-135M without it")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    import transformers

    torch.set_num_threads(1)
    folder = smollm2_folder() if arguments.model is None else arguments.model
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for kinds in KINDS:
        rows.append(row(model, kinds, plans=arguments.plans))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "plans"}), flush=True)
    name = "SmolLM2-135M" if arguments.model is None else arguments.model.name
    record = {**origin("experiments/latency/decode"), "model": name, "context": CONTEXT, "rows": rows}
    (arguments.out / "decode.json").write_text(json.dumps(record, indent=1) + "\n")
    write_between(arguments.out / "README.md", markdown(record), name="decode")


def row(model: nn.Module, kinds: tuple[str, ...], *, plans: int) -> dict[str, Any]:
    """Random plans of these kinds of groups."""
    structure = find_structure(model, torch.zeros((1, CONTEXT), dtype=torch.int64), prune=kinds)
    cost = decode_latency(model, structure, context=CONTEXT, cache=MeasurementCache(ROOT / "runs" / "latency"))
    predicted, measured, ratios = [], [], []
    for kept in random_plans(structure, plans):
        ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        smaller = shrink(model, structure, structure.plan(kept), ranking)
        seconds = [[token_seconds(network, context=CONTEXT) for network in (model, smaller)] for _ in range(PASSES)]
        dense, taken = np.min(seconds, axis=0)
        predicted.append(float(cost(kept)))
        measured.append(1e3 * taken)
        ratios.append(taken / dense)
    relative = np.array(predicted) / float(cost(structure.units))
    return {
        "kinds": list(kinds),
        "dense_ms": float(cost(structure.units)),
        "milliseconds": asdict(agreement(np.array(predicted), np.array(measured))),
        "of_dense": asdict(agreement(relative, np.array(ratios))),
        "plans": {
            "predicted_ms": np.round(predicted, 4).tolist(),
            "least_ms": np.round(measured, 4).tolist(),
            "of_dense": np.round(ratios, 4).tolist(),
        },
    }


def random_plans(structure: Structure, plans: int) -> Iterator[Any]:
    """From all but empty to dense: each plan has a density of its own, around which its groups scatter."""
    rng = np.random.default_rng(0)
    for _ in range(plans):
        density = np.clip(rng.normal(rng.uniform(0.2, 1), 0.2, len(structure.groups)), 0, 1)
        yield np.array(
            [
                group.levels[int(np.abs(np.array(group.levels) - share * group.units).argmin())]
                for group, share in zip(structure.groups, density, strict=True)
            ]
        )


def markdown(record: dict[str, Any]) -> str:
    machine, version, rows = record["machine"]["processor"], record["versions"]["torch"], record["rows"]
    origin = (
        f"{record['date'][:10]}, {machine}, one thread, fp32, torch {version}: one token of {record['model']} behind "
        f"{record['context']}, {len(rows[0]['plans']['of_dense'])} random plans a row."
    )
    titles = ("groups", "dense", "mean error", "largest", "Spearman", "mean error of the share of dense", "largest")
    return "\n".join([origin, "", *table(titles, map(_cells, rows))]) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    of, share = row["milliseconds"], row["of_dense"]
    cells = [", ".join(row["kinds"]), f"{row['dense_ms']:.1f} ms", percent(of["error"]), percent(of["largest"])]
    return [*cells, f"{of['spearman']:.4f}", percent(share["error"]), percent(share["largest"])]
