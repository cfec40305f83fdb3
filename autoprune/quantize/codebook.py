"""A codebook for the weights of one matrix: k-means in one dimension (Deep Compression, arXiv 1510.00149)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Initialisation = Literal["linear", "density", "random"]
Values = NDArray[np.float64]
ROUNDS = 100  # of k-means, at most
MOST_BITS = 8


@dataclass(frozen=True, slots=True)
class Codebook:
    """The values that a matrix's weights share, and which one each has."""

    centroids: Values
    """[count] ascending; those that no weight has are left out."""
    codes: NDArray[np.int64]
    """[weights] indices of centroids."""

    @property
    def values(self) -> Values:
        """[weights]: each weight's shared value."""
        return self.centroids[self.codes]


def codebook_of(
    weights: Values, bits: int, *, initialisation: Initialisation = "linear", rng: np.random.Generator | None = None
) -> Codebook:
    """Returns the codebook that k-means comes to: every weight has its nearest centroid, every centroid is a mean.

    Weights that have no more values than there are codes keep them: what is coded already is not coded more coarsely.

    Args:
        weights: [count] those that are kept, at least one.
        bits: Of a code, 1 to 8: 2^bits centroids at most.
        initialisation: "linear": evenly from the least weight to the greatest, which keeps the few large ones apart and
            is the paper's choice; "density": at equal shares of the weights; "random": some of the weights.
        rng: For "random".

    Raises:
        ValueError: A number is out of range, or "random" has no generator.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"a codebook's codes have 1 to {MOST_BITS} bits, got {bits}")
    if not len(weights) or not np.isfinite(weights).all():
        raise ValueError(f"a codebook is made of one finite weight or more, got {len(weights)} weights")
    ordered = np.sort(np.asarray(weights, np.float64))
    centroids = centroids_of(ordered, bits, initialisation=initialisation, rng=rng)[0]
    return Codebook(centroids, nearest_codes(weights, centroids))


def centroids_of(
    ordered: Values,
    bits: int,
    *,
    rounds: int = ROUNDS,
    initialisation: Initialisation = "linear",
    rng: np.random.Generator | None = None,
) -> tuple[Values, NDArray[np.int64]]:
    """Returns the centroids that so many rounds come to, ascending, and how many weights each is the mean of.

    Where weights have no more values than there are codes, they are the centroids.

    Args:
        ordered: [count] ascending, at least one.
        bits: Of a code: 2^bits centroids at most.
        rounds: At most, at least 1; fewer where centroids stay.
        initialisation: See `codebook_of`.
        rng: For "random".
    """
    centroids = _initial(ordered, 2**bits, initialisation, rng)
    ends_of_values = np.append(np.flatnonzero(np.diff(ordered)) + 1, len(ordered))
    if len(ends_of_values) <= 2**bits:
        return ordered[ends_of_values - 1], np.diff(ends_of_values, prepend=0)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(rounds):
        edges = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        begins, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
        used = ends > begins
        counts = (ends - begins)[used]
        means = (sums[ends] - sums[begins])[used] / counts
        stay = len(means) == len(centroids) and np.allclose(means, centroids, rtol=1e-9, atol=0)
        centroids = means
        if stay:
            break
    return centroids, counts


def nearest_codes(weights: Values, centroids: Values) -> NDArray[np.int64]:
    """Returns the index of the centroid that is nearest to each weight; centroids [count] ascending.

    Args:
        weights: Of any shape.
        centroids: The shared values [count], ascending.
    """
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, weights).astype(np.int64)


def _initial(ordered: Values, count: int, how: Initialisation, rng: np.random.Generator | None) -> Values:
    match how:
        case "linear":
            return np.unique(np.linspace(ordered[0], ordered[-1], count))
        case "density":
            return np.unique(np.quantile(ordered, (np.arange(count) + 0.5) / count))
        case "random":
            if rng is None:
                raise ValueError("initialisation='random' needs a generator of random numbers, rng")
            distinct = np.unique(ordered)
            return np.sort(rng.choice(distinct, min(count, len(distinct)), replace=False))
    raise ValueError(f"initialisation is 'linear', 'density' or 'random', got {how!r}")
