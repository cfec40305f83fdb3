"""Files of pruned and quantized LeNets: every cell a network, a seed, a density and bits."""

import argparse
import importlib
import json
import lzma
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import nn

from autoprune.coding.symbols import entropy_bits
from autoprune.deep_compression import CompressedNetwork, CompressionSettings, prune_gradually, quantize_and_write
from autoprune.evaluation.judge import Judge
from autoprune.export.apz import load_apz, state_of
from autoprune.files import atomic_write
from autoprune.quantize.shared_weights import quantizable
from autoprune.task.fashion_mnist import fashion_full, fashion_subset
from autoprune.task.lenets import LENETS
from autoprune.task.task import Roles, Task
from experiments.cells import kept
from experiments.origin import ROOT, origin

HERE = Path(__file__).parent
CELLS = ROOT / "runs" / "deep_compression"
TOLERATED = 0.002  # of accuracy below the dense network's
DENSITIES = {"lenet_300_100": (1.0, 0.12, 0.06, 0.04, 0.03), "lenet_5": (1.0, 0.08, 0.04, 0.03, 0.02)}
BITS: tuple[int | None, ...] = (None, 5, 4, 3)
SETTINGS = CompressionSettings(pruning_steps=2000, centroid_steps=500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=list(LENETS), default=list(LENETS))
    parser.add_argument("--data", help="a folder of Fashion-MNIST's four files; the shipped subset without it")
    parser.add_argument("--collect", action="store_true", help="only put the cells that are there together")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    roles = fashion_full(folder=arguments.data) if arguments.data else fashion_subset()
    if not arguments.collect:
        for seed in range(arguments.seeds):
            for network in arguments.networks:
                study(network, seed, roles)
    collect(arguments.networks, images=len(roles.train))


def study(network: str, seed: int, roles: Roles) -> None:
    """The cells of one network and seed: each density is pruned once, and quantized with every number of bits."""
    for density in DENSITIES[network]:
        pruned: list[nn.Module] = []  # made when the first cell that is missing asks for it
        for bits in BITS:
            name = f"{network}-{seed}-{density:g}-{bits}"
            kept(CELLS, name, lambda d=density, b=bits, p=pruned: cell(network, seed, roles, d, b, p))  # type: ignore[misc]


def cell(
    network: str, seed: int, roles: Roles, density: float, bits: int | None, pruned: list[nn.Module]
) -> dict[str, Any]:
    """What one setting comes to, its file compared with others' and with its own bound."""
    task = LENETS[network](roles=roles, seed=seed)
    settings = replace(SETTINGS, density=density, bits=bits, convolution_bits=None if bits is None else bits + 1)
    if not pruned:
        pruned.append(prune_gradually(task, settings, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.apz"
        result = quantize_and_write(task, pruned[0], path, settings, seed=seed)
        again = load_apz(path)
    same = all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in result.network.state_dict().items())
    judge = Judge(task, task.data.search)
    held_out = {"dense": float(judge(task.model).accuracy), "quantized": float(judge(result.network).accuracy)}
    return {
        "network": network, "seed": seed, "density": density, "bits": bits, **result.as_json(),
        "held_out": held_out, "same_bits": same, "others": packed(result.network), "bound": bound_bytes(result, task),
    }  # fmt: skip


def packed(network: nn.Module) -> dict[str, int]:
    """Bytes of the same tensors by general compressors: as float32, and as one byte a weight with its codebook."""
    floats, codes = b"", b""
    for tensor in state_of(network).values():
        array = tensor.float().numpy()
        values, index = np.unique(array, return_inverse=True)
        floats += array.tobytes()
        width = np.uint8 if len(values) <= 256 else np.uint16
        codes += values.astype(np.float16).tobytes() + index.astype(width).tobytes()
    sizes = {}
    for name, data in (("float32", floats), ("codes", codes)):
        sizes[f"xz -9 {name}"] = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            continue
        sizes[f"zstd -19 {name}"] = len(zstandard.ZstdCompressor(level=19).compress(data))
    return sizes


def bound_bytes(result: CompressedNetwork, task: Task) -> float:
    """Entropy of which weights are kept in each layer, and of the values of those; codebooks and the rest as fp16."""
    state, bits = state_of(result.network), 0.0
    for name in quantizable(result.network):
        weight = state.pop(f"{name}.weight").numpy().reshape(-1)
        values = weight[weight != 0]
        shared, counts = np.unique(values, return_counts=True)
        places = entropy_bits(np.array([len(values), len(weight) - len(values)]))
        bits += places + entropy_bits(counts) + 16 * len(shared)
    return bits / 8 + 2 * sum(tensor.numel() for tensor in state.values())


def collect(networks: Sequence[str], *, images: int) -> None:
    """results.json: every cell, the chosen one of each seed, and the figures of the README."""
    rows = [json.loads(path.read_text()) for path in sorted(CELLS.glob("*.json"))]
    chosen = [row for name in networks for row in choices([row for row in rows if row["network"] == name])]
    content = {
        "origin": origin("experiments/deep_compression/run"),
        "settings": asdict(SETTINGS),
        "train_images": images,
        "figures": {name: figures([row for row in chosen if row["network"] == name]) for name in networks},
        "chosen": chosen,
        "cells": [{key: value for key, value in row.items() if key != "layers"} for row in rows],
    }
    with atomic_write(HERE / "results.json") as partial:
        partial.write_text(json.dumps(content, indent=1))
    print(json.dumps(content["figures"], indent=1))


def choices(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each seed's smallest file that loses at most 0.2 points on the search role, which nothing was trained on."""
    best: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: -float(row["bytes"])):
        if row["held_out"]["quantized"] >= row["held_out"]["dense"] - TOLERATED:
            best[row["seed"]] = row
    return [best[seed] for seed in sorted(best)]


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with 95 % intervals by Student's t."""
    if not rows:
        return {}
    others = {name: [row["others"][name] for row in rows] for name in rows[0]["others"]}
    return {
        "seeds": len(rows),
        "ratio": interval([row["ratio"] for row in rows]),
        "points": interval([100 * (row["accuracy"]["quantized"] - row["accuracy"]["dense"]) for row in rows]),
        "dense": interval([100 * row["accuracy"]["dense"] for row in rows]),
        "over_bound": interval([row["bytes"] / row["bound"] for row in rows]),
        "same_bits": all(row["same_bits"] for row in rows),
        "over": {
            name: interval([row["bytes"] / size for row, size in zip(rows, sizes, strict=True)])
            for name, sizes in others.items()
        },
    }


def interval(values: Sequence[float]) -> list[float]:
    """Mean, lower and upper end."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, float("nan"), float("nan")]
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [mean, mean - half, mean + half]
