"""Measures of retrieval, as functions of the ranks of the true matches.

A new measure is an entry of :data:`MEASURES`: tables, result files, logs and aggregation read this one table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrueMatches:
    """Where Q queries find the images of their identity, in the galleries of T trials.

    Attributes:
        rank: (Q, T, P) float64, rank of each true match from 1 among the images that the query sees, ascending;
            infinite past the last.
        number: (Q, T) int64, number of true matches; 0 where none is left.
        first: (Q, T) float64, rank of the first true match as the protocol's CMC counts it; infinite where there is
            none.
        gallery: (Q, T) int64, number of gallery images that the query sees.
    """

    rank: Tensor
    number: Tensor
    first: Tensor
    gallery: Tensor


@dataclass(frozen=True)
class Measure:
    """A number that says how well one query was answered.

    Attributes:
        title: Heading of its column.
        of_queries: Returns (Q, T) float64 values between 0 and 1; those of queries without a true match are not used.
        logged: Whether training and testing log it as ``val/<name>`` and ``test/<name>``.
    """

    title: str
    of_queries: Callable[[TrueMatches], Tensor]
    logged: bool = False


def cmc_at(rank: int) -> Callable[[TrueMatches], Tensor]:
    """Return the measure Rank-k: 1 where the first true match is among the first ``rank``, else 0."""
    return lambda matches: (matches.first <= rank).double()


def average_precision(matches: TrueMatches) -> Tensor:
    """Return the mean over true matches j = 1, 2, ... of j / rank_j."""
    place = torch.arange(1, matches.rank.shape[2] + 1, device=matches.rank.device)
    return (place / matches.rank).sum(dim=2) / matches.number


def inverse_negative_penalty(matches: TrueMatches) -> Tensor:
    """Return the number of true matches divided by the rank of the last (Ye et al., TPAMI 2021)."""
    last = matches.rank.gather(2, (matches.number - 1).clamp(min=0)[:, :, None])[:, :, 0]
    return matches.number / last


#: Name, as result files write it -> measure. Scores are means over queries, in per cent.
MEASURES: dict[str, Measure] = {
    "rank1": Measure("Rank-1", cmc_at(1), logged=True),
    "rank5": Measure("Rank-5", cmc_at(5)),
    "rank10": Measure("Rank-10", cmc_at(10)),
    "rank20": Measure("Rank-20", cmc_at(20)),
    "mAP": Measure("mAP", average_precision, logged=True),
    "mINP": Measure("mINP", inverse_negative_penalty, logged=True),
}


def title_of(name: str) -> str:
    """Return the heading of a measure's column: its title, or its name if only a result file knows the measure."""
    return MEASURES[name].title if name in MEASURES else name
