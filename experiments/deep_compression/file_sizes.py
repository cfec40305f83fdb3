"""How far predicted sizes are from files, streams from their entropies, and how fast files are read."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from autoprune.coding import canonical_huffman
from autoprune.coding.apz_file import ApzFile, apz_bytes
from autoprune.coding.coded_tensor import TensorBits
from autoprune.coding.codes import CODES, write_symbols
from autoprune.coding.relative_positions import best_width, relative_indices
from autoprune.coding.symbols import Symbols, entropy_bits
from autoprune.export.apz import encode_state, state_of
from autoprune.export.shape_record import shape_record
from autoprune.problem.problem import Problem
from autoprune.quantize.shared_weights import quantizable
from autoprune.structure.code_bits import RAW_BITS
from autoprune.structure.groups import IntArray
from autoprune.task.task import Task
from experiments.configuration import composed, prepared_by

PLANS = 24  # random ones of each network
SETTINGS = (
    "experiment=deep_compression",
    "evaluation.store=null",
    "evaluation.batch_size=250",
    "budget=encoded_bytes:0.5",
)
DECODED = (  # density and bits of a matrix of 10.2 MB at fp32
    (0.05, 5),
    (0.1, 5),
    (0.3, 4),
    (1.0, 4),
)
SIDE = 1600
REPEATS = 5


def prediction_cell(task: Task, *, seed: int) -> dict[str, Any]:
    """Returns predicted and written bytes of random plans, and what their streams take.

    Args:
        task: Of the dense network.
        seed: Of the plans.
    """
    problem, rng = prepared_by(composed(*SETTINGS), task), np.random.default_rng(seed)
    rows = []
    for _ in range(PLANS):
        kept = random_plan(problem, rng)
        network = problem.pruned(problem.structure.plan(kept))
        written = len(encode_state(shape_record(network, task.architecture), state_of(network)))
        predicted = float(problem.costs["encoded_bytes"](kept))
        rows.append({"predicted": predicted, "written": written, **stream_bytes(network)})
    problem.close()
    return {"network": task.name, "seed": seed, "plans": rows}


def random_plan(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Returns kept units: densities log-uniform between 0.02 and 1, bits uniform over the choices.

    Args:
        problem: Whose structure decides on both.
        rng: Draws.
    """
    kept = []
    for group in problem.structure.groups:
        levels = np.array(group.levels)
        if group.coded:
            kept.append(int(rng.choice(levels[levels < RAW_BITS])))
        else:
            kept.append(int(levels[np.abs(levels - group.units * np.exp(rng.uniform(np.log(0.02), 0))).argmin()]))
    return np.array(kept, np.int64)


def stream_bytes(network: nn.Module) -> dict[str, float]:
    """Returns bytes of gaps and codes of all matrices: their entropy, by Huffman alone, and as files have them.

    Args:
        network: Whose matrices have few values.
    """
    totals = {"entropy": 0.0, "huffman": 0.0, "shortest": 0.0}
    for name, layer in quantizable(network).items():
        weight = layer.get_parameter("weight").detach().numpy().reshape(-1)
        places = np.flatnonzero(weight)
        if not len(places):
            raise ValueError(f"{name} keeps no weight")
        width = best_width(places)
        shared, codes = np.unique(weight[places], return_inverse=True)
        for symbols, alphabet in ((relative_indices(places, width), 2**width), (codes, len(shared))):
            for kind, size in _sizes(symbols.astype(np.int64), alphabet).items():
                totals[kind] += size
    return totals


def _sizes(symbols: Symbols, alphabet: int) -> dict[str, float]:
    return {
        "entropy": entropy_bits(np.bincount(symbols)) / 8,
        "huffman": len(write_symbols(symbols, alphabet, codes={1: canonical_huffman})),
        "shortest": len(write_symbols(symbols, alphabet, codes=CODES)),
    }


def decoding_cell() -> list[dict[str, Any]]:
    """Returns processor seconds, the least of five, that files of 10 MB of float32 weights are read in."""
    rows = []
    for density, bits in DECODED:
        rng = np.random.default_rng(0)
        weight = rng.laplace(size=(SIDE, SIDE)).astype(np.float32)
        kept = np.abs(weight) >= np.quantile(np.abs(weight), 1 - density)
        centroids = np.linspace(weight.min(), weight.max(), 2**bits).astype(np.float16).astype(np.float32)
        coded = np.where(kept, centroids[np.searchsorted((centroids[1:] + centroids[:-1]) / 2, weight)], np.float32(0))
        data = apz_bytes(b"{}", {"weight": TensorBits("float32", coded.view("<u4"))})
        seconds = []
        for _ in range(REPEATS):
            began = time.process_time()
            tensors: Mapping[str, Any] = ApzFile.parse(data).tensors
            again = tensors["weight"].decode().bits
            seconds.append(time.process_time() - began)
        if not np.array_equal(again, coded.view("<u4")):
            raise AssertionError("the file is not what was written")
        million = coded.nbytes / 1e6
        rows.append(
            {"density": density, "bits": bits, "file": len(data), "seconds_per_10_mb": min(seconds) * 10 / million}
        )
    return rows
