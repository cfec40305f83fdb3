"""The command: measures every length and level, and writes block_sparse.json and the README's table."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

from autoprune.structure.block_sparse import KeyBlocks
from experiments.block_sparse.table import markdown
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
TOKENS, BLOCK = (512, 1024, 2048), 64
HEADS, HEAD_DIM = 9, 64  # SmolLM2-135M's query heads
WINDOW = 3  # key blocks: its own, the one before, the first
SETTING = {"batch": 1, "heads": HEADS, "head_dim": HEAD_DIM, "block": BLOCK, "causal": True, "dtype": "float32"}
Runs = dict[str, Callable[[], Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/block_sparse/run", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    flex = torch.compile(flex_attention, dynamic=False)
    with torch.inference_mode():
        rows = [row for tokens in TOKENS for row in at_length(tokens, flex, repeats=arguments.repeats)]
    record = {
        **origin("experiments/block_sparse/run"),
        "setting": SETTING,
        "repeats": arguments.repeats,
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "block_sparse.json").write_text(json.dumps(record, indent=1) + "\n")
    write_between(arguments.out / "README.md", markdown(record), name="block_sparse")


def at_length(tokens: int, flex: Callable[..., Tensor], *, repeats: int) -> list[dict[str, Any]]:
    """A row for every level that is measured."""
    pattern = KeyBlocks.big_bird(tokens, block=BLOCK, causal=True, seed=0)
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, tokens, HEAD_DIM)
    qkv = tuple(torch.randn(shape, generator=generator) for _ in range(3))
    blocks = len(pattern.order)
    rows = []
    for kept in sorted({WINDOW, blocks // 4, blocks // 2, blocks}):
        row, runs = prepared(pattern, kept, qkv, flex)
        row |= in_turns(runs, repeats=repeats)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def prepared(
    pattern: KeyBlocks, kept: int, qkv: tuple[Tensor, ...], flex: Callable[..., Tensor]
) -> tuple[dict[str, Any], Runs]:
    """What is compared, with all that outlives a call; and how far the compiled kernel's outputs are off."""
    query, key, value = qkv
    allowed, mask = pattern.allowed(kept), block_mask(pattern, kept)
    pairs = pattern.kept_pairs
    row: dict[str, Any] = {"tokens": pattern.tokens, "blocks": len(pattern.order), "kept": kept}
    row |= {"density": round(float(pairs[kept] / pairs[-1]), 4), "macs": int(2 * HEADS * HEAD_DIM * pairs[kept])}
    runs: Runs = {
        "dense": lambda: sdpa(query, key, value, is_causal=True),
        "masked": lambda: sdpa(query, key, value, attn_mask=allowed),
    }
    start = time.perf_counter()
    try:
        outputs = flex(query, key, value, block_mask=mask)
    except RuntimeError as error:  # what torch.compile raises where there is no compiler, or no kernel
        return {**row, "flex_error": f"{type(error).__name__}: {error}".splitlines()[0]}, runs
    row["first_call_s"] = round(time.perf_counter() - start, 1)
    row["largest_difference"] = float((outputs - runs["masked"]()).abs().max())
    return row, {**runs, "flex": lambda: flex(query, key, value, block_mask=mask)}


def block_mask(pattern: KeyBlocks, kept: int) -> BlockMask:
    blocks = torch.from_numpy(pattern.allowed_blocks(kept))

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & blocks[query // BLOCK, key // BLOCK]

    return create_block_mask(sees, None, None, pattern.tokens, pattern.tokens, device="cpu", BLOCK_SIZE=BLOCK)


def in_turns(runs: Runs, *, repeats: int) -> dict[str, dict[str, float]]:
    """Minimum and median milliseconds of each; they take turns, so that what disturbs one disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first is to warm up
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {"min_ms": round(1e3 * min(times), 3), "median_ms": round(1e3 * statistics.median(times), 3)}
        for name, times in seconds.items()
    }
