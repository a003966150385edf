"""Pseudo labels of one modality: DBSCAN on the k-reciprocal Jaccard distance, or k-means by cosine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.clustering.jaccard import jaccard_distance
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number, check_sizes

#: Label of an image that belongs to no cluster.
OUTLIER = -1

# Cosines between images and centroids that are computed at a time.
_BLOCK_ELEMENTS = 2**22


def dbscan_labels(features: Tensor, *, eps: float = 0.4, min_samples: int = 4, k1: int = 30, k2: int = 6) -> Tensor:
    """Cluster by DBSCAN on the k-reciprocal Jaccard distance, of which only the pairs within ``eps`` are stored.

    Args:
        features: (N, D), L2-normalised here; the distance is computed on their device.
        eps: Largest Jaccard distance between neighbours, above 0 and below 1.
        min_samples: Images within ``eps``, itself included, that make an image the core of a cluster.
        k1: Neighbours that the Jaccard distance considers, at least 1.
        k2: Neighbours that the Jaccard distance averages weights over, at least 1.

    Returns:
        (N,) int64 on the CPU: clusters from 0, :data:`OUTLIER` (-1) for images of none. All may be outliers.

    Raises:
        VIReIDError: If an argument is out of range or a feature is not finite.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    # 1 is the Jaccard distance of images that share nothing.
    check_number("eps", eps, 0, 1, above=True, below=True)
    check_number("min_samples", min_samples, 1, whole=True)
    graph = jaccard_distance(features, k1, k2, max_distance=eps)
    graph = sort_graph_by_row_values(graph, copy=False, warn_when_not_sorted=False)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(graph)
    return torch.from_numpy(labels).long()


@torch.no_grad()
def kmeans_labels(features: Tensor, clusters: int, *, seed: int = 0, iterations: int = 100) -> Tensor:
    """Cluster by k-means on the unit sphere: each image joins the centroid of the largest cosine.

    A centroid is the L2-normalised mean of its images. The search starts from k-means++ and stops when no image moves.
    An empty cluster is given the image that is farthest from its centroid among clusters of several images, so that no
    cluster is lost.

    Args:
        features: (N, D), L2-normalised here; computed in float32 on their device.
        clusters: Number of clusters, 1 to N.
        seed: Seed of the images that the search starts from.
        iterations: Rounds after which the search stops at the latest.

    Returns:
        (N,) int64 on the CPU, every label from 0 to ``clusters - 1`` in use.

    Raises:
        VIReIDError: If there are more clusters than images, fewer than 1, or a feature is not finite.
    """
    check_number("clusters", clusters, 1, whole=True)
    check_number("seed", seed, 0, 2**63 - 1, whole=True)
    check_number("iterations", iterations, 1, whole=True)
    if clusters > len(features):
        raise VIReIDError(
            f"k-means cannot make {clusters} clusters of {len(features)} images; "
            "set the number of clusters between 1 and the number of training images of the smaller modality."
        )
    if not torch.isfinite(features).all():
        raise VIReIDError("k-means got features that are not finite; the network that made them has diverged.")
    features = F.normalize(features.float(), dim=1)
    centroids = features[_choose_starts(features, clusters, seed)]
    labels = torch.full((len(features),), OUTLIER, device=features.device)
    for _ in range(iterations):
        similarity, nearest = _find_centroids(features, centroids)
        nearest = _fill_empty(nearest, similarity, clusters)
        if torch.equal(nearest, labels):
            break
        labels = nearest
        centroids = cluster_centroids(features, labels, clusters)
    return labels.cpu()


def cluster_centroids(features: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Return the L2-normalised mean feature of each cluster.

    Args:
        features: (N, D).
        labels: (N,) int64, clusters from 0; negative labels are left out.
        clusters: Number of clusters.

    Returns:
        (clusters, D); a row of zeros for a cluster without images.
    """
    check_sizes(clusters=clusters)
    labels = labels.to(features.device)
    known = labels >= 0
    total = torch.zeros(clusters, features.shape[1], dtype=features.dtype, device=features.device)
    total.index_add_(0, labels[known], features[known])
    return F.normalize(total, dim=1)


def _choose_starts(features: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the rows that k-means++ starts from; the squared distance of unit vectors is 2 - 2 cos, halved here."""
    # Drawn on the CPU, so that the device does not change the draws.
    draws = torch.rand(clusters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    chosen = [min(int(draws[0] * len(features)), len(features) - 1)]
    distance = torch.full((len(features),), torch.inf, device=features.device)
    for draw in draws[1:]:
        distance = torch.minimum(distance, (1 - features @ features[chosen[-1]]).clamp_(min=0))
        distance[chosen[-1]] = 0
        total = distance.double().cumsum(0)
        if total[-1] > 0:
            row = int(torch.searchsorted(total, draw * total[-1], right=True).clamp_(max=len(features) - 1))
        else:  # only copies of chosen images are left: the first one that is not chosen yet
            known = set(chosen)
            row = next(row for row in range(len(features)) if row not in known)
        chosen.append(row)
    return torch.tensor(chosen, device=features.device)


def _find_centroids(features: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest cosine of each image with a centroid, and that centroid."""
    rows = max(1, _BLOCK_ELEMENTS // len(centroids))
    best = [(block @ centroids.T).max(dim=1) for block in features.split(rows)]
    return torch.cat([item.values for item in best]), torch.cat([item.indices for item in best])


def _fill_empty(labels: Tensor, similarity: Tensor, clusters: int) -> Tensor:
    """Give each empty cluster the image that is farthest from its centroid among clusters of several images."""
    sizes = torch.bincount(labels, minlength=clusters)
    empty = (sizes == 0).nonzero().flatten().tolist()
    if not empty:
        return labels
    labels = labels.clone()
    order = iter(torch.argsort(similarity, stable=True).tolist())
    for cluster in empty:
        row = next(row for row in order if sizes[labels[row]] > 1)
        sizes[labels[row]] -= 1
        labels[row] = cluster
    return labels
