"""Scoring without a Trainer: plain tensors in a notebook, or a file of saved embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from typing import Protocol as Interface

import numpy as np

from vireid_lightning.environment import list_versions
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.re_ranking import ReRanking
from vireid_lightning.metrics.result_files import check_about
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.metrics.scores import ProtocolScores
from vireid_lightning.metrics.scoring import score_protocols
from vireid_lightning.protocols import CMC, Protocol, Removal, Trial
from vireid_lightning.types import Sample

#: What results take over from saved embeddings of the same dataset.
_PASSED_ON = (
    "method", "backbone", "image_size", "interpolation", "checkpoint", "checkpoint_kind", "epoch", "training", "code",
    "trained_on_dataset",
)  # fmt: skip


class Benchmark(Interface):
    """What scoring a file asks of a dataset; every dataset of this package has it."""

    @property
    def name(self) -> str:
        """Name that results carry."""
        ...

    @property
    def trial(self) -> int | None:
        """Number of the split, where the dataset has several."""
        ...

    @property
    def distance(self) -> str:
        """Distance that the field scores it with."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of its lists of images."""
        ...

    def protocols(self, samples: Sequence[Sample], split: Literal["test"]) -> list[Protocol]:
        """Return the rows of its table."""
        ...


def evaluate(
    query: Embeddings | Sequence[Any],
    gallery: Embeddings | Sequence[Any],
    protocol: Protocol | None = None,
    *,
    removal: Removal = "none",
    cmc: CMC = "image",
    distance: str = "cosine",
    block_mb: int = 256,
    rerank: bool | ReRanking = False,
    progress: bool = False,
) -> ProtocolScores:
    """Score queries against a gallery.

    Args:
        query: :class:`Embeddings`, or a tuple of plain tensors or arrays (embeddings, identities) or (embeddings,
            identities, cameras). The embeddings may be memory-mapped.
        gallery: The same for the gallery.
        protocol: Trials as positions in ``query`` and ``gallery``, with their rules. None: one trial, all queries
            against the whole gallery, under ``removal`` and ``cmc``.
        removal: Which gallery images a query skips, where there is no ``protocol``.
        cmc: What a rank of the CMC curve counts, where there is no ``protocol``.
        distance: ``cosine`` or ``euclidean``.
        block_mb: MiB that a block of distances may take.
        rerank: Whether, or with which settings, to re-rank by k-reciprocal neighbours.
        progress: Whether to show a progress bar for a gallery of more than 32,768 images, which is read in chunks.

    Returns:
        Scores in per cent, with the counts behind them.

    Raises:
        VIReIDError: For NaN, shapes that do not fit, an unknown distance or rule, or if no query has a match.

    Example:
        >>> import torch
        >>> scores = evaluate((torch.eye(2), [4, 5]), (torch.eye(2), [4, 5]))
        >>> scores.rank1, scores.mAP
        (100.0, 100.0)
    """
    query, gallery = _as_embeddings(query, "the queries"), _as_embeddings(gallery, "the gallery")
    for name, value, choices in (("removal", removal, Removal), ("cmc", cmc, CMC)):
        if value not in get_args(choices):
            raise VIReIDError(f"{name} is '{value}'; choose one of {', '.join(get_args(choices))}.")
    if protocol is None:
        trial = Trial(np.arange(len(query)), np.arange(len(gallery)))
        protocol = Protocol("query against gallery", (trial,), removal, cmc)
    return score_protocols(
        query, gallery, [protocol], distance=distance, block_mb=block_mb, rerank=rerank, progress=progress
    )[-1]


def evaluate_file(
    path: str | Path,
    dataset: Benchmark,
    *,
    distance: str | None = None,
    block_mb: int = 256,
    rerank: bool | ReRanking = False,
    allow_trial_mismatch: bool = False,
    progress: bool = False,
) -> ScoreTable:
    """Score saved embeddings under all protocols of a dataset.

    Args:
        path: An .npz file that ``lightning predict`` or :meth:`Embeddings.save` wrote.
        dataset: The dataset; only its index files are read.
        distance: ``cosine`` or ``euclidean``; None: the dataset's.
        block_mb: MiB that a block of distances may take.
        rerank: Whether, or with which settings, to add rows with k-reciprocal re-ranking.
        allow_trial_mismatch: Score embeddings of weights that were trained on another trial of the dataset; the table
            says so.
        progress: Whether to show a progress bar for a gallery of more than 32,768 images, which is read in chunks.

    Raises:
        VIReIDError: For a file that cannot be scored, one whose images are not those of the test split, or one of
            weights that were trained on another trial.
    """
    check_number("block_mb", block_mb, 1, whole=True)
    embeddings = Embeddings.load(path)
    about = _about(embeddings, dataset)
    if about["trial_mismatch"] and not allow_trial_mismatch:
        raise VIReIDError(
            f"{path} holds embeddings of weights that were trained on trial {about['trained_on_trial']} of "
            f"{dataset.name}, but the data is trial {dataset.trial}, with identities that they were trained on; embed "
            "with weights of that trial, or give --allow-trial-mismatch to score them all the same, marked as such."
        )
    rows = score_protocols(
        embeddings,
        embeddings,
        dataset.protocols(embeddings.samples(), "test"),
        distance=distance or dataset.distance,
        block_mb=block_mb,
        rerank=rerank,
        progress=progress,
    )
    return ScoreTable(rows, about)


def _about(embeddings: Embeddings, dataset: Benchmark) -> dict[str, Any]:
    """Return what results say of saved embeddings: the dataset as it is here, the weights as the file says."""
    check_about(embeddings.origin, embeddings.about)
    said = embeddings.about if embeddings.about.get("dataset") == dataset.name else {}
    fingerprint: str | None
    try:
        fingerprint = dataset.fingerprint()
    except VIReIDError:  # the images are not here, and scoring does not need them
        fingerprint = said.get("fingerprint")
    trained = said.get("trained_on_trial")
    return {
        "stage": "evaluate",
        "dataset": dataset.name,
        "fingerprint": fingerprint,
        "dataset_trial": dataset.trial,
        "synthetic": bool(getattr(dataset, "synthetic", False)) or said.get("synthetic"),
        **{key: said.get(key) for key in _PASSED_ON},
        "versions": list_versions(),
        "trained_on_trial": trained,
        "trial_mismatch": trained is not None and trained != dataset.trial,
        "dataset_mismatch": bool(said.get("dataset_mismatch")),
        "preprocessing_mismatch": bool(said.get("preprocessing_mismatch")),
        "embeddings": str(Path(embeddings.origin).resolve()),
    }


def _as_embeddings(value: Embeddings | Sequence[Any], name: str) -> Embeddings:
    if isinstance(value, Embeddings):
        return value
    if not isinstance(value, (tuple, list)) or not 2 <= len(value) <= 3:
        raise VIReIDError(
            f"Give {name} as Embeddings, or as (embeddings, identities) or (embeddings, identities, cameras)."
        )
    return Embeddings(*value, origin=name)
