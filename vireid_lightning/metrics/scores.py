"""What a protocol scored: one number for each measure and trial, their mean and deviation, and what they are of."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.protocols import Protocol


@dataclass(frozen=True, eq=False)
class TrialScores:
    """Scores of one trial.

    Attributes:
        first: (Q,) float64, rank of each query's first true match as the CMC counts it; infinite where none is left.
        of_queries: Each measure's value for each query, (Q,) float64 from 0 to 1; NaN where no true match is left.
        gallery_images: Number of gallery images.
    """

    first: NDArray[np.float64] = field(repr=False)
    of_queries: dict[str, NDArray[np.float64]] = field(repr=False)
    gallery_images: int

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.first)

    @property
    def valid_queries(self) -> int:
        """Number of queries with at least one true match left; the others are in no score."""
        return int(np.isfinite(self.first).sum())

    @cached_property
    def scores(self) -> dict[str, float]:
        """Mean of each measure over the valid queries, in per cent, by the measure's name."""
        valid = np.isfinite(self.first)
        return {name: 100 * float(values[valid].mean()) for name, values in self.of_queries.items()}

    def cmc(self) -> NDArray[np.float64]:
        """Return the whole CMC curve, in per cent: element k - 1 is Rank-k, up to the rank of the hardest query."""
        ranks = self.first[np.isfinite(self.first)].astype(np.int64)
        return 100 * np.cumsum(np.bincount(ranks)[1:]) / len(ranks)


@dataclass(frozen=True)
class ProtocolScores:
    """Scores of one protocol: a row of the table.

    Attributes:
        protocol: What was scored.
        trials: Scores of each trial.
        distance: ``cosine`` or ``euclidean``.
        embedding_size: Number of values of one embedding.
        gallery_hash: 12 hexadecimal digits over the gallery images of all trials.
        reranking: The arguments of k-reciprocal re-ranking, or None where there was none.
    """

    protocol: Protocol
    trials: tuple[TrialScores, ...]
    distance: str
    embedding_size: int
    gallery_hash: str
    reranking: dict[str, float] | None = None

    @property
    def name(self) -> str:
        """The row's name; re-ranked scores are a row of their own."""
        return self.protocol.name + ("" if self.reranking is None else " (re-ranked)")

    def mean(self, score: str) -> float:
        """Return the mean of a score such as ``mAP`` over trials, in per cent."""
        return statistics.fmean(trial.scores[score] for trial in self.trials)

    def deviation(self, score: str) -> float | None:
        """Return the sample standard deviation (n - 1) of a score over trials, in per cent; None for one trial."""
        values = [trial.scores[score] for trial in self.trials]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the measures."""
        return tuple(self.trials[0].scores)

    @property
    def rank1(self) -> float:
        """Mean Rank-1 in per cent."""
        return self.mean("rank1")

    @property
    def mAP(self) -> float:
        """Mean average precision in per cent."""
        return self.mean("mAP")

    @property
    def mINP(self) -> float:
        """Mean inverse negative penalty in per cent."""
        return self.mean("mINP")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as ``results.json`` holds it."""
        return {
            "protocol": self.name,
            **self.protocol.labels,
            "removal": self.protocol.removal,
            "cmc": self.protocol.cmc,
            "scores": {score: self.mean(score) for score in self.scored},
            "deviation": {score: self.deviation(score) for score in self.scored} if len(self.trials) > 1 else None,
            "trials": len(self.trials),
            "trial_scores": [trial.scores for trial in self.trials],
            "queries": _one_or_all(trial.queries for trial in self.trials),
            "valid_queries": _one_or_all(trial.valid_queries for trial in self.trials),
            "gallery_images": _one_or_all(trial.gallery_images for trial in self.trials),
            "embedding_size": self.embedding_size,
            "distance": self.distance,
            "reranking": self.reranking,
            "gallery_hash": self.gallery_hash,
        }


def _one_or_all(values: Iterable[int]) -> int | list[int]:
    """Return one number where all trials have the same, else the list."""
    listed = list(values)
    return listed[0] if len(set(listed)) == 1 else listed
