"""All trials of all protocols from one distance computation, in blocks of queries of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.distances import check_distance, distance_block, exact_float32
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.equal_rows import first_equal_rows
from vireid_lightning.metrics.parallel import block_threads
from vireid_lightning.metrics.ranking import LARGEST_GALLERY, BlockScorer, QueryScores
from vireid_lightning.metrics.re_ranking import ReRanking, re_rank
from vireid_lightning.metrics.scores import ProtocolScores, hash_gallery, trial_scores
from vireid_lightning.metrics.streaming import StreamingScorer
from vireid_lightning.protocols import SYSU_QUERY_CAMERA, Protocol, Trial


@dataclass(frozen=True)
class _Task:
    """One trial of one protocol, and where its scores go."""

    protocol: Protocol
    trial: Trial
    row: int
    column: int


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

    Trials with the same queries share one distance matrix, whose rows are made, sorted once and thrown away in blocks.
    A gallery of more than :data:`LARGEST_GALLERY` images is streamed instead.

    Args:
        query: What ``trial.query`` points into.
        gallery: What ``trial.gallery`` points into; usually the same object.
        protocols: What to score.
        distance: ``cosine`` or ``euclidean``; computed in float32 whatever the autocast or matrix precision in force.
        block_mb: MiB that the blocks may take, beside one copy of the gallery.
        rerank: Whether, or with which settings, to add a row for each protocol with k-reciprocal re-ranking.
        progress: Whether to show a progress bar for galleries that are streamed.

    Returns:
        One result for each protocol, in their order; then, where asked for, one each re-ranked.

    Raises:
        VIReIDError: For an unknown distance, positions outside the embeddings, a gallery too large to be
            re-ranked, or a trial without any match.
    """
    check_distance(distance)
    check_pair(query, gallery)
    tasks: list[_Task] = []
    for row, protocol in enumerate(protocols):
        for column, trial in enumerate(protocol.trials):
            _check_positions(protocol.name, "query", trial.query, len(query))
            _check_positions(protocol.name, "gallery", trial.gallery, len(gallery))
            if len(np.unique(trial.gallery)) < len(trial.gallery):
                raise VIReIDError(f"{protocol.name}: a gallery lists an image more than once; list each once.")
            if rerank and len(trial.gallery) > LARGEST_GALLERY:
                raise VIReIDError(
                    f"{protocol.name}: re-ranking takes galleries of up to {LARGEST_GALLERY} images, and this one has "
                    f"{len(trial.gallery)}; score it without."
                )
            tasks.append(_Task(protocol, trial, row, column))
    names = gallery.path or [f"{row} {label}" for row, label in enumerate(gallery.identity.tolist())]

    def collect(done: dict[tuple[int, int], tuple[QueryScores, int]], reranking: dict[str, float] | None) -> None:
        for row, protocol in enumerate(protocols):
            trials = tuple(
                trial_scores(*done[row, column], len(trial.gallery), protocol.name)
                for column, trial in enumerate(protocol.trials)
            )
            gallery_hash = hash_gallery(names, protocol)
            results.append(ProtocolScores(protocol, trials, distance, gallery.size, gallery_hash, reranking))

    results: list[ProtocolScores] = []
    with exact_float32(gallery.device), block_threads():
        done: dict[tuple[int, int], tuple[QueryScores, int]] = {}
        for group in _share_distances(tasks):
            if len(group) == 1 and len(group[0].trial.gallery) > LARGEST_GALLERY:
                scores = StreamingScorer(
                    query,
                    gallery,
                    group[0].protocol,
                    group[0].trial,
                    distance=distance,
                    block_bytes=block_mb * 2**20,
                    progress=progress,
                ).score()
            else:
                scores = _score_group(query, gallery, group, distance, block_mb * 2**20)
            done.update({(task.row, task.column): (scores, place) for place, task in enumerate(group)})
        collect(done, None)
        if rerank:
            settings = asdict(ReRanking() if rerank is True else rerank)
            done = {
                (task.row, task.column): (_score_reranked(query, gallery, task, distance, block_mb, settings), 0)
                for task in tasks
            }
            collect(done, settings)
    return results


def check_pair(query: Embeddings, gallery: Embeddings) -> None:
    """Raise a :class:`VIReIDError` where queries cannot be compared with the gallery."""
    if query.size != gallery.size:
        raise VIReIDError(
            f"Queries have {query.size} values and gallery images {gallery.size}; embed both with the same model."
        )


def _check_positions(name: str, side: str, positions: np.ndarray, available: int) -> None:
    if not len(positions):
        raise VIReIDError(f"{name}: a trial has no {side} images.")
    if positions.min() < 0 or positions.max() >= available:
        raise VIReIDError(
            f"{name}: the protocol needs {side} image {positions.max()} (counted from 0), but there are {available} "
            "embeddings; embed all images that the protocol lists."
        )


def _share_distances(tasks: Sequence[_Task]) -> list[list[_Task]]:
    """Group trials with the same queries, as long as their galleries together stay within :data:`LARGEST_GALLERY`."""
    by_queries: dict[bytes, list[_Task]] = {}
    for task in tasks:
        by_queries.setdefault(task.trial.query.tobytes(), []).append(task)
    groups: list[list[_Task]] = []
    for group in by_queries.values():
        union = np.unique(np.concatenate([task.trial.gallery for task in group]))
        groups += [group] if len(union) <= LARGEST_GALLERY else [[task] for task in group]
    return groups


def _score_group(
    query: Embeddings, gallery: Embeddings, tasks: Sequence[_Task], distance: str, block_bytes: int
) -> QueryScores:
    """Score trials with the same queries; (queries, len(tasks)) scores on the CPU."""
    device = gallery.device
    union = np.unique(np.concatenate([task.trial.gallery for task in tasks]))
    # Only the order between identities can change a score. Galleries are listed by identity or by position; where a
    # trial's order is neither of the two that all share here, its ties are ranked again on their own.
    keys = gallery.identity.numpy() if all(_ascends(gallery, task) for task in tasks) else np.arange(len(gallery))
    union = union[keys[union].argsort(kind="stable")]
    scorer = _scorer(gallery, union, tasks)
    columns = gallery.rows(torch.from_numpy(union), distance)
    square = columns.square().sum(dim=1)
    equal = first_equal_rows(gallery, torch.from_numpy(union), distance)
    where = np.empty(len(gallery), dtype=np.int64)
    where[union] = np.arange(len(union))
    disordered = [
        (place, torch.from_numpy(where[task.trial.gallery]), _scorer(gallery, task.trial.gallery, [task]))
        for place, task in enumerate(tasks)
        if (np.diff(keys[task.trial.gallery]) < 0).any()
    ]
    asked = torch.from_numpy(tasks[0].trial.query)
    # Queries that skip the same cameras stand together, so that blocks need not be taken apart.
    together = (query.camera[asked] == SYSU_QUERY_CAMERA).long().argsort(stable=True)
    step = max(1, block_bytes // (scorer.bytes_per_query + 4 * query.size + (0 if equal is None else 4 * len(union))))
    scores = QueryScores.empty(len(asked), len(tasks))
    for rows in together.split(step):
        block = distance_block(query.rows(asked[rows], distance).to(device), columns, distance, square)
        if equal is not None:
            block = block.index_select(1, equal.to(device))
        labels = [part[asked[rows]].to(device) for part in (query.identity, query.camera)]
        scores.put(rows, slice(None), scorer(block, *labels))
        tied = scores.tied[rows].nonzero().squeeze(1)
        if len(tied):
            moved = tied.to(device)
            for place, own, alone in disordered:
                again = alone(block[moved][:, own.to(device)], *(label[moved] for label in labels))
                scores.put(rows[tied], torch.tensor([place]), again)
    return scores


def _score_reranked(
    query: Embeddings, gallery: Embeddings, task: _Task, distance: str, block_mb: int, settings: dict[str, float]
) -> QueryScores:
    """Score one trial with re-ranked distances; (queries, 1) scores on the CPU."""
    asked, listed = torch.from_numpy(task.trial.query), torch.from_numpy(task.trial.gallery)
    device = gallery.device
    distances = re_rank(
        query.rows(asked, distance).to(device), gallery.rows(listed, distance), **settings, block_mb=block_mb
    )
    scorer = _scorer(gallery, task.trial.gallery, [task])
    scores = QueryScores.empty(len(asked), 1)
    step = max(1, block_mb * 2**20 // scorer.bytes_per_query)
    for rows in torch.arange(len(asked)).split(step):
        labels = [part[asked[rows]].to(device) for part in (query.identity, query.camera)]
        scores.put(rows, slice(None), scorer(distances[rows.to(device)], *labels))
    return scores


def _ascends(gallery: Embeddings, task: _Task) -> bool:
    """Whether a trial lists its gallery by identity."""
    return not (gallery.identity[task.trial.gallery].diff() < 0).any()


def _scorer(gallery: Embeddings, positions: np.ndarray, tasks: Sequence[_Task]) -> BlockScorer:
    """Return the scorer of distance blocks whose columns are the gallery images at these positions."""
    device = gallery.device
    member = np.stack([np.isin(positions, task.trial.gallery) for task in tasks], axis=1)
    return BlockScorer(
        gallery.identity[positions].to(device),
        gallery.camera[positions].to(device),
        torch.from_numpy(member).to(device),
        [task.protocol.removal for task in tasks],
        [task.protocol.cmc for task in tasks],
    )
