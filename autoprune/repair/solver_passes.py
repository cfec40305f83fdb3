"""Which layers least squares are solved for together, so that their sums and factors fit into memory."""

from collections.abc import Mapping

MOST_COLUMNS = 8192  # a Gram matrix of so many is half a gigabyte, and its factor as much again
MOST_BYTES = 2**30  # of Gram matrices while they are solved, whatever the network
FIXED_BYTES, PER_WEIGHT_BYTE = 384 * 2**20, 2  # and of a network: so much, and so many times its weights
SUMMED = 8  # bytes of an entry of a Gram matrix in float64, while inputs are read
WORKING = 8  # of the layer that is being solved, besides
TOGETHER = 0.5  # of the limit, for layers that are summed in one pass: activations need memory beside them
KEPT = 2  # bytes of an entry that stay: of the factor in float32 half, for the rest of it is zero


def memory_limit(weight_bytes: int) -> int:
    """Returns the bytes that least squares may take for a network of so many bytes of weights."""
    return min(MOST_BYTES, FIXED_BYTES + PER_WEIGHT_BYTE * weight_bytes)


def solver_passes(entries: Mapping[str, int], *, limit: int) -> tuple[list[list[str]], list[str]]:
    """Returns the layers of each pass over the calibration samples, and those that fit into none.

    Narrow layers come first. All layers of a pass are summed at once and solved one after the other. What is solved
    takes little memory: where it is large it goes into a file.

    Args:
        entries: Layer → entries of its Gram matrices.
        limit: Bytes that may be taken at any time.
    """
    passes: list[list[str]] = []
    left_out: list[str] = []
    summed = 0  # entries of the last pass
    for name in sorted(entries, key=lambda each: entries[each]):
        own = entries[name]
        if passes and SUMMED * (summed + own) + WORKING * own <= TOGETHER * limit:
            passes[-1].append(name)
            summed += own
        elif (SUMMED + WORKING) * own <= limit:
            passes.append([name])
            summed = own
        else:
            left_out.append(name)
    return passes, left_out
