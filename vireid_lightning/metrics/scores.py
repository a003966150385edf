"""What a protocol scored: one number for each trial, their mean and deviation, and what they were measured on."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.ranking import QueryScores
from vireid_lightning.protocols import Protocol

#: The ranks that tables and result files name.
RANKS = (1, 5, 10, 20)
#: The scores that tables and result files name, as they are written.
SCORES = (*(f"rank{rank}" for rank in RANKS), "mAP", "mINP")


@dataclass(frozen=True)
class TrialScores:
    """Scores of one trial, in per cent, and the counts behind them.

    Attributes:
        scores: ``rank1``, ``rank5``, ``rank10``, ``rank20``, ``mAP``, ``mINP``.
        queries: Number of queries.
        valid_queries: Queries with at least one right gallery image left; the others are not in any score.
        gallery_images: Number of gallery images.
    """

    scores: dict[str, float]
    queries: int
    valid_queries: int
    gallery_images: int


@dataclass(frozen=True)
class ProtocolScores:
    """Scores of one protocol: a row of the table.

    Attributes:
        protocol: What was scored.
        trials: Scores of each trial.
        distance: ``cosine`` or ``euclidean``.
        embedding_size: Number of values of one embedding.
        reranking: The arguments of k-reciprocal re-ranking, or None where there was none.
        gallery_hash: 12 hexadecimal digits over the gallery images of all trials.
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
            "scores": {score: self.mean(score) for score in SCORES},
            "deviation": {score: self.deviation(score) for score in SCORES} if len(self.trials) > 1 else None,
            "trials": len(self.trials),
            "trial_scores": [trial.scores for trial in self.trials],
            "queries": _counts(trial.queries for trial in self.trials),
            "valid_queries": _counts(trial.valid_queries for trial in self.trials),
            "gallery_images": _counts(trial.gallery_images for trial in self.trials),
            "embedding_size": self.embedding_size,
            "distance": self.distance,
            "reranking": self.reranking,
            "gallery_hash": self.gallery_hash,
        }


def trial_scores(scores: QueryScores, trial: int, gallery_images: int, name: str) -> TrialScores:
    """Average one trial's scores over the queries that have a match.

    Raises:
        VIReIDError: Where no query has one; ``name`` is the protocol's.
    """
    first = scores.first[:, trial]
    matched = first > 0
    if not bool(matched.any()):
        raise VIReIDError(
            f"{name}: none of the {len(first)} queries has an image of its identity left in the gallery of "
            f"{gallery_images} images (trial {trial + 1}); look at the identities and the removed "
            "cameras."
        )
    percent = {f"rank{rank}": 100 * (first[matched] <= rank).double().mean().item() for rank in RANKS}
    percent["mAP"] = 100 * scores.average_precision[matched, trial].mean().item()
    percent["mINP"] = 100 * scores.inverse_negative_penalty[matched, trial].mean().item()
    return TrialScores(percent, len(first), int(matched.sum()), gallery_images)


def hash_gallery(names: Sequence[str], protocol: Protocol) -> str:
    """Return 12 hexadecimal digits that change when any trial's gallery does, whatever its order."""
    digest = hashlib.sha256()
    for trial in protocol.trials:
        digest.update("\n".join(sorted(names[position] for position in trial.gallery.tolist())).encode())
        digest.update(b"\n\n")
    return digest.hexdigest()[:12]


def _counts(values: Any) -> int | list[int]:
    """Return one number where all trials have the same, else the list."""
    listed = list(values)
    return listed[0] if len(set(listed)) == 1 else listed
