"""Scoring: protocols and embeddings in, scores of every trial out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.metrics import engine
from vireid_lightning.metrics.distances import Distances, EmbeddingDistances, Positions, check_distance, find_places
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.measures import MEASURES, TrueMatches
from vireid_lightning.metrics.parallel import block_threads
from vireid_lightning.metrics.re_ranking import ReRanking, re_rank
from vireid_lightning.metrics.scores import ProtocolScores, TrialScores
from vireid_lightning.metrics.sharing import ALL, Share
from vireid_lightning.precision import exact_float32
from vireid_lightning.protocols import Protocol, Trial

#: A trial: its protocol's row, and its number there.
_Place = tuple[int, int]

#: Places of queries, and of each in each trial the rank of the first true match and every measure: (B,), (B, T).
_Measured = tuple[Positions, NDArray[np.float64], dict[str, NDArray[np.float64]]]


def score_protocols(
    query: Embeddings,
    gallery: Embeddings,
    protocols: Sequence[Protocol],
    *,
    distance: str = "cosine",
    block_mb: int = 256,
    rerank: bool | ReRanking = False,
    progress: bool = False,
    share: Share = ALL,
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
        share: Which queries this process ranks, and how it learns of the others'; every process then returns the same.

    Returns:
        One result for each protocol, in their order; then, where asked for, one each re-ranked.

    Raises:
        VIReIDError: For an unknown distance, positions outside the embeddings, a gallery too large to be
            re-ranked, or a trial without any true match.
    """
    check_distance(distance)
    check_number("block_mb", block_mb, 1, whole=True)
    check_kinds({"rerank": rerank}, score_protocols)
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
    names = gallery.path or [f"{row} {label}" for row, label in enumerate(gallery.identity.tolist())]
    results: list[ProtocolScores] = []
    done: dict[tuple[int, int], TrialScores] = {}

    rank = partial(engine.rank_true_matches, query, gallery, block_bytes=block_mb * 2**20, progress=progress)

    def score(places: Sequence[_Place], distances: Distances, share: Share = ALL) -> list[_Measured]:
        protocol, trials = protocols[places[0][0]], [protocols[row].trials[number] for row, number in places]
        return list(_measure(rank(protocol, trials, distances, share=share)))

    def score_own_queries() -> dict[tuple[_Place, ...], list[_Measured]]:
        used = np.unique(np.concatenate([np.arange(0), *(trial.gallery for p in protocols for trial in p.trials)]))
        distances = EmbeddingDistances(query, gallery, used, distance)
        return {tuple(places): score(places, distances, share) for places in _share_distances(protocols, gallery)}

    def rerank_own_trials() -> dict[tuple[_Place, ...], list[_Measured]]:
        found: dict[tuple[_Place, ...], list[_Measured]] = {}
        for row, number in [place for order, place in enumerate(done) if share.owns(order)]:
            trial = protocols[row].trials[number]
            sides = (query, trial.query), (gallery, trial.gallery)
            rows, columns = (side.rows(torch.from_numpy(part), distance).to(gallery.device) for side, part in sides)
            matrix = re_rank(rows, columns, **settings, block_mb=block_mb)
            found[((row, number),)] = score([(row, number)], partial(_look_up, matrix, trial))
        return found

    def collect(work: Callable[[], dict[tuple[_Place, ...], list[_Measured]]]) -> None:
        for places, blocks in share.collect(work).items():
            trials = [protocols[row].trials[number] for row, number in places]
            done.update(zip(places, _put_together(blocks, trials), strict=True))

    def add_rows(reranking: dict[str, float] | None) -> None:
        for row, protocol in enumerate(protocols):
            trials = tuple(done[row, number] for number in range(len(protocol.trials)))
            for number, trial in enumerate(trials, start=1):
                if not trial.valid_queries:
                    raise VIReIDError(
                        f"{protocol.name}: none of the {trial.queries} queries has an image of its identity left in "
                        f"the gallery of {trial.gallery_images} images (trial {number}); look at the identities and "
                        "the removed cameras."
                    )
            about = distance, gallery.size, protocol.gallery_hash(names), reranking
            results.append(ProtocolScores(protocol, trials, *about))

    with exact_float32(gallery.device), block_threads():
        collect(score_own_queries)
        add_rows(None)
        if rerank:
            settings = asdict(ReRanking() if rerank is True else rerank)
            collect(rerank_own_trials)
            add_rows(settings)
    return results


def _share_distances(protocols: Sequence[Protocol], gallery: Embeddings) -> Iterator[list[tuple[int, int]]]:
    """Yield the trials that the engine takes together, each by its protocol's row and its number there.

    Only the order between identities can change a score where distances are equal, since true matches are of one
    identity. Trials that list their galleries by identity therefore have one order of ties; any other stands alone.
    """
    groups: dict[tuple[object, ...], dict[tuple[int, int], Positions]] = {}
    for row, protocol in enumerate(protocols):
        for number, trial in enumerate(protocol.trials):
            alone = () if not (gallery.identity[trial.gallery].diff() < 0).any() else (row, number)
            key = (trial.query.tobytes(), protocol.removal, protocol.cmc, alone)
            groups.setdefault(key, {})[row, number] = trial.gallery
    for group in groups.values():
        fit = len(np.unique(np.concatenate(list(group.values())))) <= engine.WIDEST_CHUNK
        yield from [list(group)] if fit else [[place] for place in group]


def _look_up(matrix: Tensor, trial: Trial, asked: Positions, listed: Positions, known: object = None) -> Tensor:
    """Return the part of a matrix of a trial's queries by its gallery images that belongs to these positions."""
    rows, columns = (torch.from_numpy(find_places(*pair)) for pair in ((trial.query, asked), (trial.gallery, listed)))
    return matrix[rows.to(matrix.device)].index_select(1, columns.to(matrix.device))


def _measure(blocks: Iterable[tuple[Positions, TrueMatches]]) -> Iterator[_Measured]:
    """Yield what the engine's blocks of queries score."""
    for places, matches in blocks:
        values = {}
        for name, measure in MEASURES.items():
            scored = measure.of_queries(matches)
            if not isinstance(scored, Tensor) or scored.shape != matches.number.shape:
                found = getattr(scored, "shape", type(scored).__name__)
                raise VIReIDError(
                    f"The measure '{name}' returned {found} where a tensor of (queries, trials), "
                    f"{tuple(matches.number.shape)}, belongs; mend the function of MEASURES['{name}']."
                )
            values[name] = scored.double().masked_fill(matches.number == 0, torch.nan).cpu().numpy()
        yield places, matches.first.cpu().numpy(), values


def _put_together(blocks: Iterable[_Measured], trials: Sequence[Trial]) -> Iterator[TrialScores]:
    """Yield the scores of trials that the engine took together."""
    shape = (len(trials[0].query), len(trials))
    first, values = np.full(shape, np.inf), {name: np.full(shape, np.nan) for name in MEASURES}
    for places, ranks, measured in blocks:
        first[places] = ranks
        for name, scored in measured.items():
            values[name][places] = scored
    for column, trial in enumerate(trials):
        of_queries = {name: value[:, column] for name, value in values.items()}
        yield TrialScores(first[:, column], of_queries, len(trial.gallery))
