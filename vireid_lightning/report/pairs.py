"""Distances of pairs of images: histograms within and across modalities, and the error rates of a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vireid_lightning.metrics.distances import Positions
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.rank_lists import measure_pairs
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import MODALITIES

#: Images whose pairs the histograms count, at most.
COUNTED_IMAGES = 2000

#: False positive rates at which the true positive rate is told.
RATES = (1e-4, 1e-3, 1e-2, 1e-1)

_BARS = 80
# Steps of the threshold between the smallest and the largest distance that there can be.
_STEPS = 2**16


@dataclass(frozen=True)
class PairHistogram:
    """Distances of the pairs of two modalities.

    Attributes:
        modalities: Names of the two.
        edges: (B + 1,) edges of the bars.
        true: (B,) share of the true pairs in each bar; zero where there are none.
        false: (B,) the same of the false pairs.
        true_pairs: Number of true pairs.
        false_pairs: Number of false pairs.
    """

    modalities: tuple[str, str]
    edges: NDArray[np.float64]
    true: NDArray[np.float64]
    false: NDArray[np.float64]
    true_pairs: int
    false_pairs: int

    @property
    def name(self) -> str:
        """What is compared, such as ``visible and infrared``."""
        first, second = self.modalities
        return f"{first} and {second}" if first != second else f"within {first}"


@dataclass(frozen=True)
class ErrorRates:
    """What a threshold on the distance decides, for the pairs of queries and gallery images of a protocol.

    Attributes:
        protocol: Name of the protocol.
        false_positive: (S,) false positive rate by rising threshold, the mean over trials.
        true_positive: (S,) true positive rate at the same thresholds.
        at_rates: False positive rate -> the true positive rate of each trial at the largest threshold that keeps it;
            None where a trial has too few false pairs to tell.
        true_pairs: Number of true pairs of all trials.
        false_pairs: Number of false pairs of all trials.
    """

    protocol: str
    false_positive: NDArray[np.float64]
    true_positive: NDArray[np.float64]
    at_rates: dict[float, list[float] | None]
    true_pairs: int
    false_pairs: int


def count_pairs(embeddings: Embeddings, used: Positions, distance: str) -> tuple[list[PairHistogram], int]:
    """Return the histograms of the modalities' pairs, and the number of images that they are of.

    All pairs of at most :data:`COUNTED_IMAGES` images with a known identity are counted, each once.

    Args:
        embeddings: The images.
        used: Positions of those that the protocols use.
        distance: ``cosine`` or ``euclidean``.
    """
    used = used[embeddings.identity.numpy()[used] >= 0]
    if len(used) > COUNTED_IMAGES:
        used = np.sort(np.random.default_rng(0).choice(used, COUNTED_IMAGES, replace=False))
    modality = embeddings.modality.numpy()[used]
    found: list[tuple[tuple[int, int], NDArray[np.float64], NDArray[np.bool_]]] = []
    for first, second in ((0, 0), (1, 1), (0, 1)):
        sides = used[modality == first], used[modality == second]
        if not len(sides[0]) or not len(sides[1]):
            continue
        trial = Trial(*sides)
        blocks = list(measure_pairs(embeddings, embeddings, Protocol("pairs", (trial,)), trial, distance))
        values, is_true = (np.concatenate([block[part] for block in blocks]) for part in (0, 1))
        kept = np.triu(np.ones(values.shape, dtype=bool), 1) if first == second else np.ones(values.shape, dtype=bool)
        if kept.any():
            found.append(((first, second), values[kept], is_true[kept]))
    if not found:
        return [], len(used)
    low, high = min(float(item[1].min()) for item in found), max(float(item[1].max()) for item in found)
    edges = np.linspace(low, high if high > low else low + 1, _BARS + 1)
    return [_make_histogram(*item, edges) for item in found], len(used)


def _make_histogram(
    pair: tuple[int, int], values: NDArray[np.float64], is_true: NDArray[np.bool_], edges: NDArray[np.float64]
) -> PairHistogram:
    counts = [np.histogram(values[kind], edges)[0] for kind in (is_true, ~is_true)]
    shares = [count / max(1, count.sum()) for count in counts]
    names = (MODALITIES[pair[0]], MODALITIES[pair[1]])
    return PairHistogram(names, edges, shares[0], shares[1], int(counts[0].sum()), int(counts[1].sum()))


def measure_error_rates(embeddings: Embeddings, protocol: Protocol, distance: str) -> ErrorRates:
    """Return what thresholds on the distance decide for the pairs that a protocol ranks, without the removed ones."""
    largest = 2.0 if distance == "cosine" else 2 * _largest_norm(embeddings, protocol.samples_used())
    rates, pairs = [], np.zeros(2, dtype=np.int64)
    at_rates: dict[float, list[float] | None] = {rate: [] for rate in RATES}
    for trial in protocol.trials:
        counts = np.zeros((2, _STEPS), dtype=np.int64)
        for values, is_true, removed in measure_pairs(embeddings, embeddings, protocol, trial, distance):
            step = (values / largest * _STEPS).astype(np.int64).clip(0, _STEPS - 1)
            for row, kind in enumerate((is_true & ~removed, ~is_true & ~removed)):
                counts[row] += np.bincount(step[kind], minlength=_STEPS)
        pairs += counts.sum(axis=1)
        below = counts.cumsum(axis=1) / np.maximum(1, counts.sum(axis=1, keepdims=True))
        rates.append(below)
        for rate in RATES:
            at_rates[rate] = _append(at_rates[rate], below, rate, int(counts[1].sum()))
    true_positive, false_positive = np.concatenate([np.zeros((2, 1)), np.mean(rates, axis=0)], axis=1)
    # Where neither rate moves, a threshold adds nothing to the curve.
    moves = np.append(True, (np.diff(true_positive) > 0) | (np.diff(false_positive) > 0))
    return ErrorRates(
        protocol.name, false_positive[moves], true_positive[moves], at_rates, int(pairs[0]), int(pairs[1])
    )


def _append(values: list[float] | None, below: NDArray[np.float64], rate: float, false: int) -> list[float] | None:
    """Add a trial's true positive rate at a false positive rate, unless its false pairs are too few to tell."""
    if values is None or false * rate < 1:
        return None
    kept = np.flatnonzero(below[1] <= rate)
    return [*values, float(below[0, kept[-1]]) if len(kept) else 0.0]


def _largest_norm(embeddings: Embeddings, used: Positions) -> float:
    parts: Sequence[Positions] = np.array_split(used, max(1, len(used) // 4096))
    norms = [embeddings.rows(torch.from_numpy(part), "euclidean").double().norm(dim=1).max() for part in parts]
    return max(float(norm) for norm in norms) or 1.0
