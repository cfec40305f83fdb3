"""Random tensors of the kinds that pruning and quantizing leave."""

import math

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.apz_file import apz_bytes
from autoprune.coding.coded_tensor import DTYPES, TensorBits

SHAPES = ((), (0,), (1,), (7,), (2, 0, 3), (1, 9), (9, 1), (6, 21), (4, 3, 3, 3), (20, 30))


def random_tensor(rng: np.random.Generator) -> TensorBits:
    """A tensor of any dtype and shape: random bits, shared values, scaled whole numbers, half precision; some zeros."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    dtype, size = list(DTYPES.values())[rng.integers(len(DTYPES))]
    patterns = rng.integers(0, 256, math.prod(shape) * size, dtype=np.uint8).view(f"<u{size}")
    kind = rng.integers(4)
    if kind == 1 and patterns.size:
        patterns = rng.choice(patterns[: rng.integers(1, 40)], patterns.size)
    if kind > 1 and dtype == "float32" and patterns.size:
        values = rng.standard_normal(shape or 1).astype(np.float16).astype(np.float32)
        if kind == 2 and shape:
            rows = values.reshape(shape[0], -1)
            scales = np.abs(rows).max(axis=1, keepdims=True).astype(np.float16).astype(np.float32) / 128
            values = np.rint(rows / np.maximum(scales, 1e-6)).clip(-127, 127).astype(np.float32) * scales + 0.0
        patterns = values.reshape(-1).view("<u4")
    kept = rng.random(patterns.size) < rng.choice([0, 0.05, 0.3, 1])
    return TensorBits(dtype, (patterns * kept.astype(patterns.dtype)).astype(f"<u{size}").reshape(shape))


def pruned_and_shared(shape: tuple[int, int], *, density: float, values: int, seed: int) -> NDArray[np.float32]:
    """A matrix whose smallest weights are gone and whose others have so many values, as a trained one's."""
    weights = np.random.default_rng(seed).laplace(size=shape).astype(np.float32)
    kept = np.abs(weights) > np.quantile(np.abs(weights), 1 - density)
    edges = np.linspace(weights.min(), weights.max(), values).astype(np.float32)
    return np.where(kept, edges[np.abs(weights[..., None] - edges).argmin(axis=-1)], 0).astype(np.float32)


def small_file(seed: int = 0) -> bytes:
    """A file of three tensors: sparse with shared values, scaled, and as it is."""
    rng = np.random.default_rng(seed)
    scaled = (rng.integers(-127, 128, (6, 20)) * 0.25).astype(np.float32)
    scaled[:, 0] = 127 * 0.25
    tensors = {
        "sparse": pruned_and_shared((30, 40), density=0.1, values=16, seed=seed),
        "scaled": scaled + np.float32(0),
        "bias": rng.standard_normal(30).astype(np.float32),
    }
    return apz_bytes(
        b'{"schema": 1}', {name: TensorBits("float32", array.view("<u4")) for name, array in tensors.items()}
    )
