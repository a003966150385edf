"""DBSCAN and k-means on planted clusters, and what happens where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.jaccard import jaccard_reference
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from vireid_lightning.clustering import cluster_centroids, dbscan_labels, kmeans_labels
from vireid_lightning.errors import VIReIDError


def planted(sizes: list[int], noise: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centres = torch.randn(len(sizes), 32, generator=generator)
    return centres[truth] + noise * torch.randn(len(truth), 32, generator=generator), truth.numpy()


def test_dbscan_equals_scikit_learn_on_the_dense_reference():
    features, _ = planted([30, 20, 12, 8, 5, 1, 1, 1], noise=1.1)
    distance = jaccard_reference(features.double().numpy(), 20, 4)
    expected = DBSCAN(eps=0.5, min_samples=4, metric="precomputed").fit_predict(distance)
    assert len(set(expected)) > 2  # clusters and outliers
    assert (expected == -1).any()
    np.testing.assert_array_equal(dbscan_labels(features.double(), eps=0.5, k1=20, k2=4), expected)


def test_dbscan_finds_planted_clusters():
    features, truth = planted([25, 25, 25, 25], noise=0.3)
    assert adjusted_rand_score(truth, dbscan_labels(features, k1=20)) == 1


def test_dbscan_may_call_everything_an_outlier():
    labels = dbscan_labels(torch.eye(12), k1=3, k2=1)
    assert labels.tolist() == [-1] * 12


def test_dbscan_may_find_one_cluster():
    features, _ = planted([25], noise=0.1)
    assert dbscan_labels(features, eps=0.9).tolist() == [0] * 25


@pytest.mark.parametrize("arguments", [{"eps": 1.0}, {"eps": 0.0}, {"min_samples": 0}])
def test_dbscan_refuses_what_it_cannot_cluster_by(arguments):
    with pytest.raises(VIReIDError, match=f"{next(iter(arguments))} is"):
        dbscan_labels(torch.eye(4), **arguments)


def test_kmeans_finds_planted_clusters_whatever_the_length_of_the_features():
    features, truth = planted([40, 20, 10, 5, 5], noise=0.2)
    labels = kmeans_labels(features * torch.rand(80, 1).add(0.1), 5)
    assert adjusted_rand_score(truth, labels) == 1


def test_kmeans_ends_where_every_image_is_with_its_nearest_centroid():
    features, _ = planted([20] * 6, noise=2.0)
    labels = kmeans_labels(features, 6)
    centroids = cluster_centroids(torch.nn.functional.normalize(features, dim=1), labels, 6)
    nearest = (torch.nn.functional.normalize(features, dim=1) @ centroids.T).argmax(dim=1)
    assert torch.equal(nearest, labels)


def test_kmeans_follows_from_its_seed():
    features, _ = planted([20] * 6, noise=2.0)
    assert torch.equal(kmeans_labels(features, 6, seed=3), kmeans_labels(features, 6, seed=3))
    assert not torch.equal(kmeans_labels(features, 6, seed=3), kmeans_labels(features, 6, seed=4))


@pytest.mark.parametrize("clusters", [1, 7, 12])
def test_kmeans_uses_every_label_even_among_copies(clusters):
    features = torch.eye(3).repeat_interleave(4, dim=0)
    assert kmeans_labels(features, clusters).unique().tolist() == list(range(clusters))


@pytest.mark.parametrize("clusters", [0, 13])
def test_kmeans_cannot_make_more_clusters_than_images(clusters):
    with pytest.raises(
        VIReIDError, match=f"clusters is {clusters}; give" if not clusters else "13 clusters of 12 images"
    ):
        kmeans_labels(torch.eye(12), clusters)


def test_kmeans_refuses_features_that_are_not_finite():
    with pytest.raises(VIReIDError, match="not finite"):
        kmeans_labels(torch.full((3, 2), float("inf")), 2)


def test_centroids_are_unit_means_without_the_outliers():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [0.0, -2.0]])
    centroids = cluster_centroids(features, torch.tensor([0, 0, -1, 1]), 3)
    half = 0.5**0.5
    assert torch.allclose(centroids, torch.tensor([[half, half], [0.0, -1.0], [0.0, 0.0]]))
