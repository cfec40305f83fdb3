"""Which layers least squares are solved for together, so that their sums and factors fit into memory."""

from collections.abc import Mapping

MOST_COLUMNS = 8192  # a Gram matrix of so many is half a gigabyte, and its factor as much again
MOST_BYTES = 2**30  # of Gram matrices and factors together, whatever the network
FIXED_BYTES, PER_WEIGHT_BYTE = 384 * 2**20, 2  # and of a network: so much, and so many times its weights
SUMMED = 8  # bytes of an entry of a Gram matrix in float64, while inputs are read
WORKING = 8  # of the layer that is being solved, besides
SOLVED = 4  # of a factor in float32, which stays


def memory_limit(weight_bytes: int) -> int:
    """Returns the bytes that least squares may take for a network of so many bytes of weights."""
    return min(MOST_BYTES, FIXED_BYTES + PER_WEIGHT_BYTE * weight_bytes)


def solver_passes(entries: Mapping[str, int], *, limit: int) -> tuple[list[list[str]], list[str]]:
    """Returns the layers of each pass over the calibration samples, and those that fit into none.

    Narrow layers come first. All layers of a pass are summed at once and solved one after the other; what earlier
    passes have solved stays.

    Args:
        entries: Layer → entries of its Gram matrices.
        limit: Bytes that may be taken at any time.
    """
    passes: list[list[str]] = []
    left_out: list[str] = []
    solved = summed = 0  # entries of earlier passes, and of the last one
    for name in sorted(entries, key=lambda each: entries[each]):
        own = entries[name]
        if passes and SOLVED * solved + SUMMED * (summed + own) + WORKING * own <= limit:
            passes[-1].append(name)
            summed += own
        elif SOLVED * (solved + summed) + (SUMMED + WORKING) * own <= limit:
            passes.append([name])
            solved, summed = solved + summed, own
        else:
            left_out.append(name)
    return passes, left_out
