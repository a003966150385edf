"""Matching the clusters of the two modalities, so that both share one set of pseudo labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.clustering.pseudo_labels import OUTLIER, cluster_centroids
from vireid_lightning.errors import VIReIDError


@dataclass(frozen=True)
class Matching:
    """Pseudo labels that two modalities share.

    Attributes:
        visible_labels: (Nv,) int64 on the CPU, 0 to ``clusters - 1``; -1 for outliers.
        infrared_labels: (Ni,) int64 on the CPU, likewise; equal labels belong to one pair of matched clusters.
        clusters: Number of matched pairs of clusters.
        cost: Mean squared Euclidean distance between the L2-normalised centroids of a pair, 0 to 4.
    """

    visible_labels: Tensor
    infrared_labels: Tensor
    clusters: int
    cost: float


@torch.no_grad()
def match_clusters(visible: Tensor, visible_labels: Tensor, infrared: Tensor, infrared_labels: Tensor) -> Matching:
    """Pair visible with infrared clusters one to one: bipartite matching (Wu et al., TCSVT 2024).

    The modality with more clusters is merged by Ward linkage of its L2-normalised centroids down to the other's count.
    The Hungarian algorithm then pairs the clusters so that the sum of the squared Euclidean distances between the
    L2-normalised centroids of each pair is least. The centroid of a merged cluster is the mean of all its images.

    Args:
        visible: (Nv, D) features of the visible images, L2-normalised here.
        visible_labels: (Nv,) int64, their clusters; -1 for outliers, which stay outliers.
        infrared: (Ni, D) features of the infrared images in the same space, L2-normalised here.
        infrared_labels: (Ni,) int64, their clusters; -1 for outliers, which stay outliers.

    Returns:
        The shared labels, numbered in the order of the visible clusters.

    Raises:
        VIReIDError: If a modality has no cluster, or its features and labels do not fit together.

    Example:
        >>> axes = torch.eye(3)
        >>> match_clusters(axes, torch.tensor([0, 1, 2]), axes[[2, 1, 0]], torch.tensor([0, 1, 2])).infrared_labels
        tensor([2, 1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    sides = []
    for name, features, labels in (
        ("visible", visible, visible_labels),
        ("infrared", infrared, infrared_labels),
    ):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise VIReIDError(
                f"The {name} side has features {tuple(features.shape)} and labels {tuple(labels.shape)}; "
                "give one label for each row of a matrix."
            )
        labels = _renumber(labels)
        if not len(labels) or int(labels.max()) < 0:
            raise VIReIDError(
                f"None of the {len(labels)} {name} images is in a cluster, so there is nothing to match; "
                "raise eps, lower min_samples, or use k-means."
            )
        sides.append((F.normalize(features.double(), dim=1), labels))
    clusters = min(int(labels.max()) + 1 for _, labels in sides)
    (visible, visible_labels), (infrared, infrared_labels) = (
        (features, _merge(features, labels, clusters)) for features, labels in sides
    )
    rows = cluster_centroids(visible, visible_labels, clusters)
    columns = cluster_centroids(infrared, infrared_labels, clusters).to(rows.device)
    cost = (2 - 2 * rows @ columns.T).cpu().numpy()
    visible_cluster, infrared_cluster = linear_sum_assignment(cost)
    # The visible clusters come back in ascending order: each keeps its number and gives it to its partner.
    partner = torch.empty(clusters, dtype=torch.long)
    partner[torch.from_numpy(infrared_cluster)] = torch.from_numpy(visible_cluster)
    known = infrared_labels >= 0
    shared = torch.where(known, partner[infrared_labels.clamp(min=0)], OUTLIER)
    return Matching(visible_labels, shared, clusters, float(cost[visible_cluster, infrared_cluster].mean()))


def _renumber(labels: Tensor) -> Tensor:
    """Return the labels on the CPU, numbered from 0 without gaps; outliers stay outliers."""
    labels = labels.detach().cpu().long()
    known = labels >= 0
    renumbered = torch.full_like(labels, OUTLIER)
    renumbered[known] = torch.unique(labels[known], return_inverse=True)[1]
    return renumbered


def _merge(features: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Merge by Ward linkage of the centroids until ``clusters`` clusters are left, numbered by their first members."""
    from scipy.cluster.hierarchy import cut_tree, ward

    present = int(labels.max()) + 1
    if present == clusters:
        return labels
    centroids = cluster_centroids(features, labels, present).cpu().numpy()
    merged = torch.from_numpy(cut_tree(ward(centroids), n_clusters=clusters)[:, 0]).long()
    return torch.where(labels >= 0, merged[labels.clamp(min=0)], OUTLIER)
