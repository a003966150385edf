"""What a report shows, computed from embeddings and scores; the page and the figures are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.results import ScoreTable
from vireid_lightning.report.embedding_map import EmbeddingMap, draw_map
from vireid_lightning.report.pairs import ErrorRates, PairHistogram, count_pairs, measure_error_rates
from vireid_lightning.report.rank_lists import RankListGroup, choose_rows, list_ranks
from vireid_lightning.report.thresholds import ProtocolThresholds, measure_thresholds
from vireid_lightning.report.training_curves import TrainingCurves, read_training_curves


@dataclass(frozen=True)
class ReportContent:
    """All that a report is drawn from.

    Attributes:
        table: The scores, and what they are of.
        embeddings: What was scored.
        groups: Rank lists of the default protocol, and of each other direction that the dataset has.
        histograms: Distances of true and false pairs within and across modalities.
        counted: Number of images whose pairs the histograms count.
        rates: What a threshold decides about pairs, for the protocols of ``groups``.
        thresholds: What a threshold decides about queries whose person may not be in the gallery, for the same ones.
        map: The map of the embeddings, None where there are too few.
        training: The training curves, None where there are none.
        names: Names of identities that are not called by their number.
        root: Folder of the images, None where they are not to be shown.
        outside: Whether images may lie outside of that folder.
    """

    table: ScoreTable
    embeddings: Embeddings
    groups: tuple[RankListGroup, ...]
    histograms: tuple[PairHistogram, ...]
    counted: int
    rates: tuple[ErrorRates, ...]
    thresholds: tuple[ProtocolThresholds, ...]
    map: EmbeddingMap | None
    training: TrainingCurves | None
    names: Mapping[int, str]
    root: Path | None
    outside: bool = False


def collect(
    embeddings: Embeddings,
    table: ScoreTable,
    *,
    default: str | None = None,
    root: Path | None = None,
    outside: bool = False,
    names: Mapping[int, str] | None = None,
    training: str | Path | None = None,
    lists: int = 100,
    queries: Sequence[str] = (),
) -> ReportContent:
    """Compute what a report shows.

    Args:
        embeddings: What the protocols' trials point into.
        table: Their scores.
        default: Name of the dataset's default protocol.
        root: Folder that the images' paths are relative to; None shows no images.
        outside: Whether images may lie outside of that folder.
        names: Names of identities that are not called by their number.
        training: The ``metrics.csv`` of the training run.
        lists: Number of rank lists in each direction.
        queries: Paths of the queries to list instead, all of one direction.

    Raises:
        VIReIDError: For fewer than one list, a path of no query, or a ``metrics.csv`` that cannot be read.
    """
    check_number("The number of rank lists", lists, 1, whole=True)
    names = names or {}
    rows = choose_rows(table.rows, embeddings, default)
    listed = rows
    if queries:
        listed = [row for row in rows if _is_query(embeddings, row.protocol.trials[0].query, queries[0])] or rows[:1]
    groups = [list_ranks(row, embeddings, count=lists, names=names, queries=queries) for row in listed]
    used = np.unique(np.concatenate([row.protocol.samples_used() for row in rows]))
    distance = rows[0].distance
    histograms, counted = count_pairs(embeddings, used, distance)
    curves = None if training is None else read_training_curves(training)
    return ReportContent(
        table,
        embeddings,
        tuple(groups),
        tuple(histograms),
        counted,
        tuple(measure_error_rates(embeddings, row.protocol, distance) for row in rows),
        tuple(measure_thresholds(embeddings, row.protocol, distance) for row in rows),
        draw_map(embeddings, used, distance),
        curves or None,
        names,
        root,
        outside,
    )


def _is_query(embeddings: Embeddings, query: object, path: str) -> bool:
    places = np.asarray(query)
    return embeddings.path is not None and path in {embeddings.path[place] for place in places.tolist()}
