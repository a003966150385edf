"""How CMAM's stages cluster their images."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vireid_lightning.clustering import dbscan_labels, kmeans_labels
from vireid_lightning.methods.cmam.schedule import Clusterer, SourceStage, TargetStage
from vireid_lightning.methods.pseudo_labels import Clusters, cluster_by_modality


def cluster(
    features: Tensor,
    modality: Tensor,
    stage: SourceStage | TargetStage,
    clusterer: Clusterer,
    *,
    matching: bool,
    seed: int,
) -> Clusters:
    """Label images by clusters of each modality, matched across modalities or not.

    Args:
        features: (N, D) of all images, normalised here.
        modality: (N,) int64.
        stage: Settings of the clustering.
        clusterer: ``dbscan`` or ``kmeans``.
        matching: Whether visible and infrared clusters get common labels; without, the infrared labels follow the
            visible ones.
        seed: Seed of k-means.

    Raises:
        VIReIDError: If a modality has no cluster, or all images are in one.
    """
    if clusterer == "kmeans":
        label_images, advice = partial(kmeans_labels, clusters=stage.clusters, seed=seed), ""
    else:
        label_images = partial(dbscan_labels, eps=stage.eps, min_samples=stage.min_samples, k1=stage.k1, k2=stage.k2)
        advice = "{change} eps, change k1 or min_samples, use k-means"
    return cluster_by_modality(features, modality, label_images, match=matching, clusterer=clusterer, advice=advice)
