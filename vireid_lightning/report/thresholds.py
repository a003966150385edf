"""How often a threshold for "not in the gallery" is wrong, on the dataset's own identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.open_set import count_errors, pick_threshold, read_thresholds
from vireid_lightning.metrics.rank_lists import measure_pairs
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import MODALITIES

#: False positive rates that thresholds are chosen at.
STATED_RATES = (1e-3, 1e-2, 5e-2, 1e-1)


@dataclass(frozen=True)
class ThresholdErrors:
    """What a threshold decides about the queries of a protocol, the mean over its trials.

    Attributes:
        stated: The false positive rate that the threshold was chosen at.
        stored: Whether it is the one that is stored with the embeddings.
        threshold: The distance, chosen on all queries; None where they are too few.
        false_positive: Share of queries that find an image although their person's images are taken out of the gallery.
        missed: Share of queries whose person is in the gallery and is not found.
    """

    stated: float
    stored: bool
    threshold: float | None
    false_positive: float | None
    missed: float | None


@dataclass(frozen=True)
class ProtocolThresholds:
    """The thresholds of a protocol.

    Attributes:
        protocol: Name of the protocol.
        queries: Number of queries of the first trial.
        gallery: Number of gallery images of the first trial.
        identities: Number of persons among these queries.
        errors: What each threshold decides.
    """

    protocol: str
    queries: int
    gallery: int
    identities: int
    errors: tuple[ThresholdErrors, ...]


def measure_thresholds(embeddings: Embeddings, protocol: Protocol, distance: str) -> ProtocolThresholds:
    """Return the error rates of thresholds that are chosen at stated false positive rates.

    Every query counts twice, over the gallery images that the protocol does not remove: once without its own person's
    images, where finding any is a false positive, and once with them, where finding none of its person's is a miss. The
    rates are those on persons that a threshold was not chosen on: it is chosen on the queries of half of the identities
    and counted on those of the others, and the other way round. A threshold that is stored with the embeddings was
    chosen on other images, and is counted on all queries.

    Args:
        embeddings: The images, with their identities.
        protocol: What the queries and the galleries are.
        distance: ``cosine`` or ``euclidean``.
    """
    trials = [(trial, *_find_nearest(embeddings, protocol, trial, distance)) for trial in protocol.trials]
    identity, found = embeddings.identity.numpy(), []
    for rate in STATED_RATES:
        rows = [_cross_validate(identity[trial.query], other, own, rate) for trial, other, own in trials]
        found.append(ThresholdErrors(rate, False, *_average(rows)))
    stored = _read_stored(embeddings, protocol, distance)
    if stored is not None:
        rate, threshold = stored
        rows = [(threshold, *count_errors(other, own, threshold)) for _, other, own in trials]
        found.append(ThresholdErrors(rate, True, *_average(rows)))
    query, gallery = protocol.trials[0].query, protocol.trials[0].gallery
    persons = len(np.unique(identity[query]))
    return ProtocolThresholds(protocol.name, len(query), len(gallery), persons, tuple(found))


def _find_nearest(
    embeddings: Embeddings, protocol: Protocol, trial: Trial, distance: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of each query to the nearest image of another person and of its own; infinity for none."""
    other, own = [np.empty(0)], [np.empty(0)]
    for values, is_true, removed in measure_pairs(embeddings, embeddings, protocol, trial, distance):
        other.append(np.where(is_true | removed, np.inf, values).min(axis=1))
        own.append(np.where(is_true & ~removed, values, np.inf).min(axis=1))
    return np.concatenate(other), np.concatenate(own)


def _cross_validate(
    identity: NDArray[np.int64], other: NDArray[np.float64], own: NDArray[np.float64], rate: float
) -> tuple[float | None, float | None, float | None]:
    """Return the threshold of all queries, and the error rates of each half of the persons by the other's."""
    place = np.unique(identity, return_inverse=True)[1] % 2
    wrong, missed = np.full(len(other), np.nan), np.full(len(own), np.nan)
    for half in (place == 0, place == 1):
        threshold = pick_threshold(other[half], rate)
        if threshold is None:
            return None, None, None
        wrong[~half], missed[~half] = other[~half] < threshold, own[~half] >= threshold
    wrong, missed = wrong[np.isfinite(other)], missed[np.isfinite(own)]
    return (
        pick_threshold(other, rate),
        float(wrong.mean()) if len(wrong) else None,
        float(missed.mean()) if len(missed) else None,
    )


def _average(
    rows: list[tuple[float | None, float | None, float | None]],
) -> tuple[float | None, float | None, float | None]:
    """Return the means over trials; None where a trial cannot tell."""
    columns = [[value for value in column if value is not None] for column in zip(*rows)]
    first, second, third = (float(np.mean(kept)) if len(kept) == len(rows) else None for kept in columns)
    return first, second, third


def _read_stored(embeddings: Embeddings, protocol: Protocol, distance: str) -> tuple[float, float] | None:
    """Return the rate and the threshold that `vireid threshold` stored for queries of the protocol's modality."""
    stored = read_thresholds(embeddings)
    kinds = np.unique(embeddings.modality.numpy()[protocol.trials[0].query]).tolist()
    if stored.get("distance") != distance or len(kinds) != 1 or kinds[0] < 0:
        return None
    row = stored.get(MODALITIES[kinds[0]])
    return None if row is None else (float(stored["stated_rate"]), float(row["threshold"]))
