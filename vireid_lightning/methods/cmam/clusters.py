"""What CMAM does between two epochs: from the features of all images to pseudo labels, and how good these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.clustering import OUTLIER, dbscan_labels, kmeans_labels, match_clusters
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.cmam.schedule import Clusterer, SourceStage, TargetStage
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE, Sample


class Clusters(NamedTuple):
    """The pseudo labels of a domain's images.

    Attributes:
        labels: (N,) int64 on the CPU, the same for both modalities where they are matched; -1 outliers.
        found: Clusters of each modality present before matching, by its number.
    """

    labels: Tensor
    found: dict[int, int]

    @property
    def count(self) -> int:
        """Number of pseudo identities."""
        return int(self.labels.max()) + 1


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
        stage: The clustering's settings.
        clusterer: ``dbscan`` or ``kmeans``.
        matching: Whether visible and infrared clusters get common labels; without, the infrared labels follow the
            visible ones.
        seed: Of k-means.

    Raises:
        VIReIDError: If a modality has no cluster, or all images are in one.
    """
    features = F.normalize(features, dim=1)
    labels = torch.full((len(features),), OUTLIER)
    rows = {number: (modality == number).nonzero().flatten().cpu() for number in modality.unique().tolist()}
    for own in rows.values():
        chosen = features[own.to(features.device)]
        if clusterer == "kmeans":
            labels[own] = kmeans_labels(chosen, stage.clusters, seed=seed)
        else:
            labels[own] = dbscan_labels(chosen, eps=stage.eps, min_samples=stage.min_samples, k1=stage.k1, k2=stage.k2)
    found = {number: int(labels[own].max()) + 1 for number, own in rows.items()}
    for number, clusters in found.items():
        if clusters < 2:
            inside = int((labels[rows[number]] >= 0).sum())
            # One cluster of nearly all images is too coarse; one of a few, or none, too fine.
            change = "lower" if inside > len(rows[number]) // 2 else "raise"
            remedy = f"{change} eps, change k1 or min_samples, use k-means, or " if clusterer == "dbscan" else ""
            raise VIReIDError(
                f"{clusterer} put {inside} of the {len(rows[number])} {MODALITIES[number]} images into "
                f"{clusters} {'cluster' if clusters else 'clusters'}, from which nothing can be learned; {remedy}start "
                "from better weights (init_from, pretrained)."
            )
    if len(rows) == 2:
        visible, infrared = rows[VISIBLE], rows[INFRARED]
        if matching:
            sides = [(features[own.to(features.device)], labels[own]) for own in (visible, infrared)]
            matched = match_clusters(*sides[0], *sides[1])
            labels[visible], labels[infrared] = matched.visible_labels, matched.infrared_labels
        else:
            labels[infrared] = torch.where(labels[infrared] >= 0, labels[infrared] + found[VISIBLE], OUTLIER)
    return Clusters(labels, found)


def own_labels(samples: Sequence[Sample]) -> Clusters:
    """Label images by their identities; images of unknown identity are outliers.

    Raises:
        VIReIDError: If there are fewer than two identities.
    """
    identities = torch.tensor([sample.identity for sample in samples])
    labels = torch.full_like(identities, OUTLIER)
    known = identities >= 0
    labels[known] = identities[known].unique(return_inverse=True)[1]
    if int(labels.max()) < 1:
        raise VIReIDError("source_labels: true needs a source with at least 2 identities; set it to false.")
    return Clusters(labels, {number: int(labels.max()) + 1 for number in {sample.modality for sample in samples}})


def describe(clusters: Clusters, modality: Tensor, identities: NDArray[np.int64] | None) -> dict[str, float]:
    """Return what a log says of pseudo labels.

    Always: ``clusters`` (pseudo identities), and for each modality ``clusters_<modality>`` (found before matching) and
    ``outliers_<modality>`` (share of its images). Where true identities are known: ``v_measure`` and ``ari`` (adjusted
    Rand index), over the images in a cluster, overall and for each modality as ``..._<modality>``; and, where labels
    are shared by the modalities, ``right_pairs``: the share of matched pairs whose visible and infrared images have
    the same most frequent identity.

    Args:
        clusters: The labels.
        modality: (N,) int64.
        identities: (N,) true identities, -1 unknown, or None.
    """
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    labels, modality = clusters.labels.numpy(), modality.cpu().numpy()
    values: dict[str, float] = {"clusters": clusters.count}
    for number, found in clusters.found.items():
        values[f"clusters_{MODALITIES[number]}"] = found
        values[f"outliers_{MODALITIES[number]}"] = float((labels[modality == number] < 0).mean())
    if identities is None:
        return values
    known = (labels >= 0) & (identities >= 0)
    parts = {"": known, **{f"_{MODALITIES[number]}": known & (modality == number) for number in clusters.found}}
    for suffix, part in parts.items():
        if not part.any():
            continue
        values[f"v_measure{suffix}"] = float(v_measure_score(identities[part], labels[part]))
        values[f"ari{suffix}"] = float(adjusted_rand_score(identities[part], labels[part]))
    majority = [
        {label: np.bincount(identities[part & (labels == label)]).argmax() for label in np.unique(labels[part])}
        for part in (known & (modality == number) for number in clusters.found)
    ]
    shared = set.intersection(*map(set, majority)) if len(majority) == 2 else set()
    if shared:
        values["right_pairs"] = float(np.mean([majority[0][label] == majority[1][label] for label in shared]))
    return values
