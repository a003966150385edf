"""Scoring: protocols and embeddings in, scores of every trial out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import engine
from vireid_lightning.metrics.distances import Distances, EmbeddingDistances, Positions, check_distance, exact_float32
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.measures import MEASURES
from vireid_lightning.metrics.parallel import block_threads
from vireid_lightning.metrics.re_ranking import ReRanking, re_rank
from vireid_lightning.metrics.scores import ProtocolScores, TrialScores
from vireid_lightning.protocols import Protocol, Trial


class _Task(NamedTuple):
    """One trial of one protocol, by the protocol's row and the trial's number."""

    protocol: Protocol
    trial: Trial
    row: int
    number: int


def score_protocols(
    query: Embeddings,
    gallery: Embeddings,
    protocols: Sequence[Protocol],
    *,
    distance: str = "cosine",
    block_mb: int = 256,
    rerank: bool | ReRanking = False,
    progress: bool = False,
) -> list[ProtocolScores]:
    """Score every trial of every protocol.

    Trials with the same queries and rules share one distance matrix, which is made and thrown away in blocks.

    Args:
        query: What ``trial.query`` points into.
        gallery: What ``trial.gallery`` points into; usually the same object.
        protocols: What to score.
        distance: ``cosine`` or ``euclidean``; computed in float32 whatever the autocast or matrix precision in force.
        block_mb: MiB that the blocks may take, beside one copy of a chunk of the gallery.
        rerank: Whether, or with which settings, to add a row for each protocol with k-reciprocal re-ranking.
        progress: Whether to show a progress bar for galleries of several chunks.

    Returns:
        One result for each protocol, in their order; then, where asked for, one each re-ranked.

    Raises:
        VIReIDError: For an unknown distance, positions outside the embeddings, a gallery too large to be
            re-ranked, or a trial without any true match.
    """
    check_distance(distance)
    if query.size != gallery.size:
        raise VIReIDError(
            f"Queries have {query.size} values and gallery images {gallery.size}; embed both with the same model."
        )
    for protocol in protocols:
        protocol.check(len(query), len(gallery))
        largest = max(len(trial.gallery) for trial in protocol.trials)
        if rerank and largest > engine.WIDEST_CHUNK:
            raise VIReIDError(
                f"{protocol.name}: re-ranking takes galleries of up to {engine.WIDEST_CHUNK} images, and this one has "
                f"{largest}; score it without."
            )
    tasks = [_Task(p, trial, row, number) for row, p in enumerate(protocols) for number, trial in enumerate(p.trials)]
    names = gallery.path or [f"{row} {label}" for row, label in enumerate(gallery.identity.tolist())]
    results: list[ProtocolScores] = []
    done: dict[tuple[int, int], TrialScores] = {}

    def score(group: Sequence[_Task], distances: Distances) -> None:
        done.update(_score_together(query, gallery, group, distances, block_mb, progress))

    def add_rows(reranking: dict[str, float] | None) -> None:
        for row, protocol in enumerate(protocols):
            trials = tuple(done[row, number] for number in range(len(protocol.trials)))
            about = distance, gallery.size, protocol.gallery_hash(names), reranking
            results.append(ProtocolScores(protocol, trials, *about))

    with exact_float32(gallery.device), block_threads():
        used = np.unique(np.concatenate([np.arange(0), *(task.trial.gallery for task in tasks)]))
        distances = EmbeddingDistances(query, gallery, used, distance)
        for group in _share_distances(tasks, gallery):
            score(group, distances)
        add_rows(None)
        if rerank:
            settings = asdict(ReRanking() if rerank is True else rerank)
            for task in tasks:
                sides = (query, task.trial.query), (gallery, task.trial.gallery)
                rows, columns = (side.rows(torch.from_numpy(part), distance).to(gallery.device) for side, part in sides)
                score([task], _look_up(re_rank(rows, columns, **settings, block_mb=block_mb), task.trial))
            add_rows(settings)
    return results


def _share_distances(tasks: Sequence[_Task], gallery: Embeddings) -> list[list[_Task]]:
    """Group the trials that the engine takes together.

    Only the order between identities can change a score where distances are equal, since true matches are of one
    identity. Trials that list their galleries by identity therefore have one order of ties; any other stands alone.
    """
    groups: dict[tuple[object, ...], list[_Task]] = {}
    for task in tasks:
        by_identity = not (gallery.identity[task.trial.gallery].diff() < 0).any()
        alone = () if by_identity else (task.row, task.number)
        key = (task.trial.query.tobytes(), task.protocol.removal, task.protocol.cmc, alone)
        groups.setdefault(key, []).append(task)
    shared: list[list[_Task]] = []
    for group in groups.values():
        union = np.unique(np.concatenate([task.trial.gallery for task in group]))
        shared += [group] if len(union) <= engine.WIDEST_CHUNK else [[task] for task in group]
    return shared


def _look_up(matrix: Tensor, trial: Trial) -> Distances:
    """Return distances that look up a matrix of a trial's queries by its gallery images."""
    row_of, column_of = (np.zeros(part.max() + 1, dtype=np.int64) for part in (trial.query, trial.gallery))
    row_of[trial.query], column_of[trial.gallery] = np.arange(len(trial.query)), np.arange(len(trial.gallery))

    def block(asked: Positions, listed: Positions, known: object = None) -> Tensor:
        rows, columns = torch.from_numpy(row_of[asked]), torch.from_numpy(column_of[listed])
        return matrix[rows.to(matrix.device)].index_select(1, columns.to(matrix.device))

    return block


def _score_together(
    query: Embeddings, gallery: Embeddings, tasks: Sequence[_Task], distances: Distances, block_mb: int, progress: bool
) -> dict[tuple[int, int], TrialScores]:
    """Score trials that the engine takes together; by row and number."""
    protocol, trials = tasks[0].protocol, [task.trial for task in tasks]
    shape = (len(trials[0].query), len(tasks))
    first, values = np.full(shape, np.inf), {name: np.full(shape, np.nan) for name in MEASURES}
    blocks = engine.rank_true_matches(
        query, gallery, protocol, trials, distances, block_bytes=block_mb * 2**20, progress=progress
    )
    for places, matches in blocks:
        first[places] = matches.first.cpu()
        for name, measure in MEASURES.items():
            scored = measure.of_queries(matches)
            if not isinstance(scored, Tensor) or scored.shape != matches.number.shape:
                found = getattr(scored, "shape", type(scored).__name__)
                raise VIReIDError(
                    f"The measure '{name}' returned {found} where a tensor of (queries, trials), "
                    f"{tuple(matches.number.shape)}, belongs; mend the function of MEASURES['{name}']."
                )
            values[name][places] = scored.double().masked_fill(matches.number == 0, torch.nan).cpu()
    scores = {}
    for column, task in enumerate(tasks):
        of_queries = {name: value[:, column] for name, value in values.items()}
        of_trial = TrialScores(first[:, column], of_queries, len(task.trial.gallery))
        if not of_trial.valid_queries:
            raise VIReIDError(
                f"{task.protocol.name}: none of the {of_trial.queries} queries has an image of its identity left in "
                f"the gallery of {of_trial.gallery_images} images (trial {task.number + 1}); look at the identities "
                "and the removed cameras."
            )
        scores[task.row, task.number] = of_trial
    return scores
