"""Codebooks: nearest centroids, centroids that are means, and the three ways to begin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from autoprune.quantize.codebook import codebook_of
from autoprune.quantize.shared_weights import shared_values


@given(st.integers(1, 200), st.integers(1, 8), st.sampled_from(["linear", "density", "random"]), st.integers(0, 2**31))
def test_every_weight_has_its_nearest_centroid_and_every_centroid_is_used(
    count: int, bits: int, how: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = np.round(rng.normal(size=count), int(rng.integers(1, 6)))
    book = codebook_of(weights, bits, initialisation=how, rng=rng)  # type: ignore[arg-type]
    assert len(book.centroids) <= 2**bits
    assert (np.diff(book.centroids) > 0).all()
    distance = np.abs(weights[:, None] - book.centroids)
    assert np.allclose(distance[np.arange(count), book.codes], distance.min(axis=1))


@pytest.mark.parametrize("how", ["linear", "density"])
def test_it_is_where_scikit_learns_k_means_stands_still(how: str) -> None:
    weights = np.random.default_rng(0).laplace(size=2000)
    book = codebook_of(weights, 4, initialisation=how)  # type: ignore[arg-type]
    again = KMeans(len(book.centroids), init=book.centroids[:, None], n_init=1, max_iter=1).fit(weights[:, None])
    ours = np.square(weights - book.values).sum()
    assert ours == pytest.approx(again.inertia_, rel=1e-3)
    assert ours < 0.05 * np.square(weights - weights.mean()).sum()


def test_linear_centroids_keep_the_large_weights_apart() -> None:
    weights = np.concatenate([np.random.default_rng(0).normal(0, 0.01, 5000), [1.0, -1.0]])
    error = {
        how: np.abs(weights - codebook_of(weights, 3, initialisation=how).values)[-2:].max()  # type: ignore[arg-type]
        for how in ("linear", "density")
    }
    assert error["linear"] < 1e-9


def test_few_distinct_weights_are_kept_as_they_are() -> None:
    weights = np.array([0.5, -0.25, 0.5, 3.0])
    assert codebook_of(weights, 4, initialisation="density").values.tolist() == pytest.approx(weights.tolist())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8 bits, got 9"):
        codebook_of(np.ones(3), 9)
    with pytest.raises(ValueError, match="one finite weight or more"):
        codebook_of(np.zeros(0), 3)
    with pytest.raises(ValueError, match="needs a generator"):
        codebook_of(np.ones(3), 2, initialisation="random")
    with pytest.raises(ValueError, match="'linear', 'density' or 'random', got 'best'"):
        codebook_of(np.ones(3), 2, initialisation="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_what_is_coded_already_is_not_coded_more_coarsely(bits: int) -> None:
    """Outliers leave most centroids that begin evenly unused, so that a second k-means would join what is apart."""
    generator = torch.Generator().manual_seed(bits)
    weight = 0.2 * torch.randn(300, 40, generator=generator)
    weight[3, 5], weight[9, 9], weight[7] = 3.2, -3.3, 0
    once = shared_values(weight, bits)
    assert torch.equal(shared_values(once, bits), once)
    kept = once[once != 0].double().numpy()
    assert (codebook_of(kept, bits).values == kept).all()
    assert len(once.unique()) <= 2**bits + 1 < len(weight.unique())
