"""When nobody in the gallery is the query: a distance chosen at a stated rate of false positives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.metrics.distances import check_distance, distance_block
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.open_set import count_errors, pick_threshold
from vireid_lightning.precision import exact_float32
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, check_modality

_QUERIES_AT_ONCE = 512
_IMAGES_AT_ONCE = 2**15


def choose_thresholds(
    validation: Embeddings,
    false_positive_rate: float = 0.01,
    *,
    distance: str = "cosine",
    gallery_modalities: Sequence[int] = (VISIBLE, INFRARED),
) -> dict[str, Any]:
    """Return the distances from which on "not in the gallery" is said, measured on images of known persons.

    Every validation image is a query twice. Once without its own person's images in the gallery: the nearest image is
    then of somebody else, and naming it a false positive. The threshold is the largest distance below which at most
    the stated share of these queries finds an image. And once with them, without those of its own camera where cameras
    are known: where the nearest of the person's images is not below the threshold, the person is missed.

    Args:
        validation: Embeddings with identities, of persons that were not trained on.
        false_positive_rate: Share of queries of persons who are not in the gallery that may find an image all the same.
        distance: ``cosine`` or ``euclidean``.
        gallery_modalities: Modalities that the gallery has, 0 visible, 1 infrared: the others are no candidates.

    Returns:
        In plain values, under the name of each modality of queries that can be measured: ``threshold``; ``queries``,
        ``gallery_images`` and ``identities``; ``false_positive_rate``, as measured; ``miss_rate``, null where no query
        has a true match. And ``stated_rate`` and ``distance``.

    Raises:
        VIReIDError: The rate is not between 0 and 1, identities are unknown, or there are too few queries to measure
            such a rate.
    """
    check_distance(distance)
    check_number("The false positive rate", false_positive_rate, 0, 1, above=True, below=True)
    check_kinds({"gallery_modalities": gallery_modalities}, choose_thresholds)
    for number in gallery_modalities:
        check_modality(number, "gallery_modalities")
    identity, modality = validation.identity.numpy(), validation.modality.numpy()
    if (identity == UNKNOWN).any():
        raise VIReIDError(
            f"{validation.origin}: {int((identity == UNKNOWN).sum())} of {len(validation)} images have no identity, "
            "and a threshold is measured on known persons; embed a CSV file with the column identity, or use what "
            "`lightning predict` writes."
        )
    found: dict[str, Any] = {"stated_rate": false_positive_rate, "distance": distance}
    listed = np.flatnonzero(np.isin(modality, list(gallery_modalities)))
    for kind, name in enumerate(MODALITIES):
        asked = np.flatnonzero(modality == kind)
        if not len(asked) or not len(listed):
            continue
        other, own = _find_nearest(validation, asked, listed, distance)
        queries = int(np.isfinite(other).sum())
        threshold = pick_threshold(other, false_positive_rate)
        if threshold is None:
            raise VIReIDError(
                f"{validation.origin} has {queries} {name} queries with somebody else in the gallery; a false positive "
                f"rate of {false_positive_rate:g} needs at least {math.ceil(1 / false_positive_rate)}."
            )
        false_positive, missed = count_errors(other, own, threshold)
        found[name] = {
            "threshold": threshold,
            "queries": queries,
            "gallery_images": len(listed),
            "identities": len(np.unique(identity[asked])),
            "false_positive_rate": false_positive,
            "miss_rate": missed,
        }
    if not set(found) & set(MODALITIES):
        raise VIReIDError(
            f"{validation.origin} has no image of a modality that the gallery has; give images of both modalities."
        )
    return found


def _find_nearest(
    embeddings: Embeddings, asked: NDArray[np.int64], listed: NDArray[np.int64], distance: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of each query to the nearest image of another person and of its own; infinity for none."""
    identity, camera = embeddings.identity, embeddings.camera
    other, own = np.full(len(asked), np.inf), np.full(len(asked), np.inf)
    for begin in range(0, len(listed), _IMAGES_AT_ONCE):
        columns = torch.from_numpy(listed[begin : begin + _IMAGES_AT_ONCE])
        gallery = embeddings.rows(columns, distance)
        for first in range(0, len(asked), _QUERIES_AT_ONCE):
            part = slice(first, first + _QUERIES_AT_ONCE)
            rows = torch.from_numpy(asked[part])
            query = embeddings.rows(rows, distance)
            with exact_float32(gallery.device):
                block = distance_block(query, gallery, distance).cpu()
                if distance == "cosine":
                    block += 1
                else:
                    block = (block + query.square().sum(dim=1, keepdim=True).cpu()).clamp(min=0).sqrt()
            same = identity[rows, None] == identity[columns]
            near = (camera[rows, None] == camera[columns]) & (camera[columns] != UNKNOWN)
            near |= rows[:, None] == columns
            for nearest, kept in ((other, ~same), (own, same & ~near)):
                smallest = block.masked_fill(~kept, torch.inf).min(dim=1).values.double().numpy()
                nearest[part] = np.minimum(nearest[part], smallest)
    return other, own
