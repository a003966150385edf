"""The sparse, blocked Jaccard distance against the dense image-by-image reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.jaccard import jaccard_reference

from vireid_lightning.clustering import jaccard, jaccard_distance
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.k_reciprocal import InnerProducts, find_nearest


def planted(clusters: int, images: int, dimensions: int, noise: float, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(clusters)
    centres = torch.randn(clusters, dimensions, generator=generator, dtype=dtype)
    spread = noise * torch.randn(clusters * images, dimensions, generator=generator, dtype=dtype)
    return centres.repeat_interleave(images, dim=0) + spread


def dense(graph) -> np.ndarray:
    full = np.ones(graph.shape)
    entries = graph.tocoo()
    full[entries.row, entries.col] = entries.data
    return full


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 6), (13, 1), (5, 2), (2, 3), (1, 1)])
def test_values_equal_the_reference(k1, k2):
    features = planted(20, 15, 32, noise=1.2)
    reference = jaccard_reference(features.numpy(), k1, k2)
    graph = jaccard_distance(features, k1, k2)
    # Both are sums of at most a few hundred float64 terms below 1.
    np.testing.assert_allclose(dense(graph), reference, atol=1e-12)
    assert graph.nnz == (reference < 1).sum()


def test_more_neighbours_than_images_are_all_of_them():
    features = planted(4, 6, 8, noise=1.0)
    reference = jaccard_reference(features.numpy(), 90, 6)
    np.testing.assert_allclose(dense(jaccard_distance(features, 90, 6)), reference, atol=1e-12)


def test_float32_stays_near_float64():
    features = planted(20, 15, 32, noise=1.2, dtype=torch.float32)
    # Sums of some hundred float32 terms below 1: 100 x 6e-8. No two neighbours of this data are closer than rounding.
    np.testing.assert_allclose(
        dense(jaccard_distance(features)), jaccard_reference(features.double().numpy()), atol=6e-6
    )


def test_small_blocks_give_the_same_graph(monkeypatch):
    features = planted(12, 10, 16, noise=1.0)
    whole = jaccard_distance(features, 10, 3)
    monkeypatch.setattr(jaccard, "_BLOCK_BYTES", 3000)  # each step needs more than 10 times as much
    blocked = jaccard_distance(features, 10, 3)
    np.testing.assert_array_equal(whole.indices, blocked.indices)
    np.testing.assert_allclose(whole.data, blocked.data, atol=1e-12)


def test_max_distance_keeps_exactly_the_nearer_pairs():
    features = planted(12, 10, 16, noise=1.0)
    full, near = dense(jaccard_distance(features, 10, 3)), jaccard_distance(features, 10, 3, max_distance=0.4)
    assert near.nnz == (full <= 0.4).sum()
    np.testing.assert_array_equal(dense(near), np.where(full <= 0.4, full, 1))


def test_the_graph_is_symmetric_sorted_and_has_a_stored_diagonal_of_zero():
    graph = jaccard_distance(planted(12, 10, 16, noise=1.0), 10, 3)
    assert graph.has_sorted_indices
    assert (graph != graph.T).nnz == 0
    assert graph.nnz > 120
    np.testing.assert_array_equal(graph.diagonal(), 0)
    for row in range(120):
        assert row in graph.indices[graph.indptr[row] : graph.indptr[row + 1]]


def test_the_order_of_the_images_and_the_length_of_their_features_do_not_matter():
    features = planted(12, 10, 16, noise=1.0)
    order = torch.randperm(120)
    shuffled = dense(jaccard_distance(features[order] * torch.rand(120, 1, dtype=torch.float64).add(0.5), 10, 3))
    np.testing.assert_allclose(shuffled, dense(jaccard_distance(features, 10, 3))[np.ix_(order, order)], atol=1e-12)


def test_copies_of_an_image_come_after_itself_and_have_distance_zero():
    features = torch.eye(6).repeat_interleave(4, dim=0)
    nearest = find_nearest(24, 2, InnerProducts(features).block, features.device, 2**20)
    assert nearest[:, 0].tolist() == list(range(24))
    graph = jaccard_distance(features, 4, 1)
    np.testing.assert_allclose(dense(graph), np.kron(1 - np.eye(6), np.ones((4, 4))), atol=1e-6)


def test_one_image_is_at_distance_zero_from_itself():
    np.testing.assert_array_equal(jaccard_distance(torch.ones(1, 3)).toarray(), [[0]])


@pytest.mark.parametrize(
    ("features", "arguments", "message"),
    [
        (torch.zeros(0, 3), {}, "N of at least 1"),
        (torch.zeros(3), {}, "N of at least 1"),
        (torch.zeros(3, 3).long(), {}, "floating type"),
        (torch.tensor([[1.0], [float("nan")]]), {}, "row 1"),
        (torch.ones(3, 3), {"k1": 0}, "k1 is 0"),
        (torch.ones(3, 3), {"max_distance": 1.5}, "max_distance is 1.5"),
    ],
)
def test_bad_input_is_one_sentence(features, arguments, message):
    with pytest.raises(VIReIDError, match=message):
        jaccard_distance(features, **arguments)
