"""Between two epochs of a method with pseudo labels: features of all images, clusters, labels, and their quality.

A method whose ``batches`` is ``pseudo_label`` calls :func:`extract_features` and :func:`assign_clusters` in its
``on_train_epoch_start``. The batches of that epoch are drawn by the labels and carry them as their ``identity``. All of
it works in any number of processes, and a run that is resumed at the end of an epoch goes on as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.clustering import OUTLIER, match_clusters
from vireid_lightning.data.self_training import DomainName, SelfTraining
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.distributed import extract_all, on_first_process
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE, Sample


@dataclass(frozen=True)
class Clusters:
    """The pseudo labels of a domain's images.

    Attributes:
        labels: (N,) int64 on the CPU; -1 for outliers.
        found: Number of clusters of each modality present, before any matching, by the modality's number.
    """

    labels: Tensor
    found: dict[int, int]

    @property
    def count(self) -> int:
        """Number of pseudo labels."""
        return int(self.labels.max()) + 1


def require_self_training(module: ReIDModule) -> SelfTraining:
    """Return the images and batches of a method with pseudo labels that is being trained."""
    data = module.training_data
    if data is None or data.self_training is None:
        raise VIReIDError(f"{type(module).__name__} is not in training on pseudo labels, so it has no images to label.")
    return data.self_training


def extract_features(module: ReIDModule, name: DomainName, features: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the features of all images of a domain, in eval mode, gathered in every process.

    Args:
        module: The method, in training.
        name: ``target``, the datamodule's own dataset, or ``source``.
        features: Function from images and modality to (B, D), such as the method's ``embed``.

    Returns:
        (N, D) float32 on the module's device, in the order of the domain's samples.
    """
    data = require_self_training(module)
    return extract_all(module, data.extraction_loader(name), len(data.domains[name].samples), features)


def assign_clusters(module: ReIDModule, name: DomainName, find_clusters: Callable[[Tensor], Clusters]) -> Clusters:
    """Label a domain's images, draw the coming batches by the labels, and log how good they are.

    The log says ``<name>/<measure>`` for each measure of :func:`describe_clusters`. True identities, where the dataset
    has them, go into these measures alone.

    Args:
        module: The method, in training.
        name: ``target`` or ``source``.
        find_clusters: Function from the modality (N,) of the domain's images to their clusters; only the first process
            calls it.

    Returns:
        The clusters, the same in every process.
    """
    data = require_self_training(module)
    domain = data.domains[name]
    modality = torch.from_numpy(domain.modality)
    clusters = on_first_process(module.trainer, lambda: find_clusters(modality))
    data.assign(name, clusters.labels.numpy())
    values = describe_clusters(clusters, modality, domain.true_identities())
    module.log_dict({f"{name}/{key}": value for key, value in values.items()}, sync_dist=False)
    return clusters


def cluster_by_modality(
    features: Tensor,
    modality: Tensor,
    label_images: Callable[[Tensor], Tensor],
    *,
    match: bool = False,
    clusterer: str = "The clustering",
    advice: str = "",
) -> Clusters:
    """Cluster each modality on its own.

    Args:
        features: (N, D) of all images, normalised here.
        modality: (N,) int64.
        label_images: Function from the L2-normalised features of one modality to labels on the CPU: clusters from 0,
            -1 for outliers, such as :func:`~vireid_lightning.clustering.dbscan_labels`.
        match: Whether visible and infrared clusters are matched and get common labels; otherwise the infrared labels
            follow the visible ones, and no label is shared.
        clusterer: Name of the clustering in an error.
        advice: What an error says to do; ``{change}`` in it becomes raise where clusters are too few or too small, and
            lower where nearly all images are in one.

    Raises:
        VIReIDError: If a modality has no cluster, or all images are in one.
    """
    features = F.normalize(features, dim=1)
    labels = torch.full((len(features),), OUTLIER)
    rows = {number: (modality == number).nonzero().flatten().cpu() for number in modality.unique().tolist()}
    for own in rows.values():
        labels[own] = label_images(features[own.to(features.device)])
    found = {number: int(labels[own].max()) + 1 for number, own in rows.items()}
    for number, clusters in found.items():
        if clusters < 2:
            inside = int((labels[rows[number]] >= 0).sum())
            # One cluster of nearly all images is too coarse; one of a few, or none, too fine.
            change = "lower" if inside > len(rows[number]) // 2 else "raise"
            raise VIReIDError(
                f"{clusterer} put {inside} of the {len(rows[number])} {MODALITIES[number]} images into "
                f"{clusters} {'cluster' if clusters else 'clusters'}, from which nothing can be learned; "
                f"{advice.format(change=change)}{', or ' if advice else ''}start from better weights (init_from, "
                "pretrained)."
            )
    if len(rows) == 2:
        visible, infrared = rows[VISIBLE], rows[INFRARED]
        if match:
            sides = [(features[own.to(features.device)], labels[own]) for own in (visible, infrared)]
            matched = match_clusters(*sides[0], *sides[1])
            labels[visible], labels[infrared] = matched.visible_labels, matched.infrared_labels
        else:
            labels[infrared] = torch.where(labels[infrared] >= 0, labels[infrared] + found[VISIBLE], OUTLIER)
    return Clusters(labels, found)


def label_by_identity(samples: Sequence[Sample]) -> Clusters:
    """Label images by their identities; images of unknown identity are outliers.

    Raises:
        VIReIDError: If there are fewer than two identities.
    """
    identities = torch.tensor([sample.identity for sample in samples])
    labels = torch.full_like(identities, OUTLIER)
    known = identities >= 0
    labels[known] = identities[known].unique(return_inverse=True)[1]
    if int(labels.max()) < 1:
        raise VIReIDError("data.source.labels: true needs a source with at least 2 identities; set it to false.")
    return Clusters(labels, {number: int(labels.max()) + 1 for number in {sample.modality for sample in samples}})


def describe_clusters(clusters: Clusters, modality: Tensor, identities: NDArray[np.int64] | None) -> dict[str, float]:
    """Return what a log says of pseudo labels.

    Always: ``clusters`` (number of pseudo labels), and for each modality ``clusters_<modality>`` (number found before
    matching) and ``outliers_<modality>`` (share of its images). Where true identities are known: ``v_measure`` and
    ``ari`` (adjusted Rand index), over the images in a cluster, overall and for each modality as ``..._<modality>``;
    and, where labels are shared by the modalities, ``right_pairs``: the share of matched pairs whose visible and
    infrared images have the same most frequent identity.

    Args:
        clusters: The labels.
        modality: (N,) int64.
        identities: (N,) true identities, -1 where unknown; None where the dataset has none.
    """
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    labels, numbers = clusters.labels.numpy(), modality.cpu().numpy()
    values: dict[str, float] = {"clusters": float(clusters.count)}
    for number, found in clusters.found.items():
        values[f"clusters_{MODALITIES[number]}"] = float(found)
        values[f"outliers_{MODALITIES[number]}"] = float((labels[numbers == number] < 0).mean())
    if identities is None:
        return values
    known = (labels >= 0) & (identities >= 0)
    parts = {"": known, **{f"_{MODALITIES[number]}": known & (numbers == number) for number in clusters.found}}
    for suffix, part in parts.items():
        if not part.any():
            continue
        values[f"v_measure{suffix}"] = float(v_measure_score(identities[part], labels[part]))
        values[f"ari{suffix}"] = float(adjusted_rand_score(identities[part], labels[part]))
    majority = [
        {label: np.bincount(identities[part & (labels == label)]).argmax() for label in np.unique(labels[part])}
        for part in (known & (numbers == number) for number in clusters.found)
    ]
    shared = set.intersection(*map(set, majority)) if len(majority) == 2 else set()
    if shared:
        values["right_pairs"] = float(np.mean([majority[0][label] == majority[1][label] for label in shared]))
    return values
