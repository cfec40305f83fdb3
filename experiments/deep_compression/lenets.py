"""Files of pruned and quantized LeNets: every cell a network, a seed, a density and bits."""

import importlib
import lzma
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.coding.symbols import entropy_bits
from autoprune.deep_compression import FP32, CompressionSettings, layer_sizes, prune_gradually
from autoprune.export.apz import load_apz, save_apz, state_of
from autoprune.quantize.quantized_network import quantize_codebook
from autoprune.quantize.shared_weights import quantizable
from autoprune.task.lenets import LENETS
from autoprune.task.task import Roles, Task, outputs_of
from experiments.cells import kept

Grid = Mapping[float, Sequence[int | None]]
FIRST_SEED = 3  # of which nothing was seen when this was decided
FIRST_GRID: Mapping[str, Grid] = {  # of the first seed, density → bits
    "lenet_300_100": dict.fromkeys((1.0, 0.12, 0.09, 0.06), (None, 4, 3, 2)),
    "lenet_5": dict.fromkeys((1.0, 0.14, 0.09), (None, 4, 3)),
}
GRID: Mapping[str, Grid] = {  # of all others
    "lenet_300_100": dict.fromkeys((0.12, 0.09), (3, 2)),
    "lenet_5": {0.14: (4, 3)},
}
DENSE_STEPS = {"lenet_300_100": 3000, "lenet_5": 1500}
SETTINGS: Mapping[str, CompressionSettings] = {
    "lenet_300_100": CompressionSettings(pruning_steps=2000, centroid_steps=400),
    "lenet_5": CompressionSettings(pruning_steps=1000, centroid_steps=200),
}


def run_lenets(networks: Iterable[str], *, seeds: int, roles: Roles, cells: Path) -> None:
    """Every cell that is missing is made, all networks' first seed first.

    Args:
        networks: Names in LENETS.
        seeds: How many, from FIRST_SEED.
        roles: Fashion-MNIST.
        cells: The folder of the cells.
    """
    names = list(networks)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for network in names:
            _study(network, seed, roles, cells)


def _study(network: str, seed: int, roles: Roles, cells: Path) -> None:
    """The cells of one network and seed: each density is pruned once, and quantized with every number of bits."""
    made: list[Judged] = []  # when the first cell that is missing asks for it, as pruned networks are
    grid = (FIRST_GRID if seed == FIRST_SEED else GRID)[network]
    for density, choices in grid.items():
        pruned: list[nn.Module] = []
        for bits in choices:

            def make(density: float = density, bits: int | None = bits, pruned: list[nn.Module] = pruned) -> Any:
                if not made:
                    made.append(Judged(LENETS[network](roles=roles, steps=DENSE_STEPS[network], seed=seed)))
                wider = None if bits is None else bits + 1
                settings = replace(SETTINGS[network], density=density, bits=bits, convolution_bits=wider)
                if not pruned:
                    pruned.append(prune_gradually(made[0].task, settings, seed=seed))
                return {"network": network, "seed": seed, **cell(made[0], pruned[0], settings, seed=seed)}

            kept(cells, f"{network}-{seed}-{density:g}-{bits}", make)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A task whose networks are judged once each."""

    task: Task
    """Of the dense network."""
    _accuracies: dict[nn.Module, dict[str, float]] = field(default_factory=dict)

    def accuracies(self, network: nn.Module) -> dict[str, float]:
        """Returns the metric on the search and on the test role."""
        if network not in self._accuracies:
            task = self.task
            self._accuracies[network] = {
                name: float(task.metric(outputs_of(network, role.inputs, task.forward), role.targets))
                for name, role in (("search", task.data.search), ("test", task.data.test))
            }
        return self._accuracies[network]


def cell(judged: Judged, pruned: nn.Module, settings: CompressionSettings, *, seed: int) -> dict[str, Any]:
    """What one setting comes to, its file compared with others' and with its own bound.

    Args:
        judged: The task of the dense network.
        pruned: With the settings' density.
        settings: Density and bits.
        seed: Of training.
    """
    task, network = judged.task, pruned
    if settings.bits is not None:
        network = quantize_codebook(
            pruned, task, bits=settings.bits, convolution_bits=settings.convolution_bits,
            initialisation=settings.initialisation, steps=settings.centroid_steps,
            learning_rate=settings.learning_rate / 2, generator=torch.Generator().manual_seed(seed),
            batch_size=128,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.apz"
        size = save_apz(network, path, architecture=task.architecture)
        again = load_apz(path, model=None if task.architecture else task.model)
    dense_bytes = FP32 * sum(parameter.numel() for parameter in task.model.parameters())
    accuracies = {
        "dense": judged.accuracies(task.model), "pruned": judged.accuracies(pruned), "file": judged.accuracies(again)
    }  # fmt: skip
    return {
        "density": settings.density, "bits": settings.bits,
        "bytes": size, "dense_bytes": dense_bytes, "ratio": dense_bytes / size,
        "accuracy": {name: each["test"] for name, each in accuracies.items()},
        "held_out": {name: each["search"] for name, each in accuracies.items()},
        "same_bits": all(torch.equal(tensor, again.state_dict()[n]) for n, tensor in network.state_dict().items()),
        "others": {} if settings.bits is None else packed(network), "bound": bound_bytes(network),
        "layers": [layer.as_json() for layer in layer_sizes(network)],
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


def bound_bytes(network: nn.Module) -> float:
    """Entropy of which weights are kept in each layer, and of the values of those; codebooks and the rest as fp16."""
    state, bits = state_of(network), 0.0
    for name in quantizable(network):
        weight = state.pop(f"{name}.weight").numpy().reshape(-1)
        values = weight[weight != 0]
        shared, counts = np.unique(values, return_counts=True)
        places = entropy_bits(np.array([len(values), len(weight) - len(values)]))
        bits += places + entropy_bits(counts) + 16 * len(shared)
    return bits / 8 + 2 * sum(tensor.numel() for tensor in state.values())
