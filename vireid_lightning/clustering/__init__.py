"""Clustering without labels: k-reciprocal Jaccard distance, pseudo labels, cross-modality matching, cluster memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vireid_lightning.lazy import lazily

if TYPE_CHECKING:
    from vireid_lightning.clustering.jaccard import jaccard_distance
    from vireid_lightning.clustering.matching import Matching, match_clusters
    from vireid_lightning.clustering.memory import update_memory
    from vireid_lightning.clustering.pseudo_labels import OUTLIER, cluster_centroids, dbscan_labels, kmeans_labels

__all__ = [
    "OUTLIER",
    "Matching",
    "cluster_centroids",
    "dbscan_labels",
    "jaccard_distance",
    "kmeans_labels",
    "match_clusters",
    "update_memory",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "OUTLIER": "pseudo_labels",
            "Matching": "matching",
            "cluster_centroids": "pseudo_labels",
            "dbscan_labels": "pseudo_labels",
            "jaccard_distance": "jaccard",
            "kmeans_labels": "pseudo_labels",
            "match_clusters": "matching",
            "update_memory": "memory",
        },
    )
