"""The nearest gallery images of single queries, ranked as the engine ranks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.distances import EmbeddingDistances, Positions, check_distance
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.engine import LAST_KEY, LOW_BITS, make_keys
from vireid_lightning.precision import exact_float32
from vireid_lightning.protocols import Protocol, Trial, is_removed

# Distances that are held at a time.
_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Nearest:
    """The nearest gallery images of Q queries.

    Attributes:
        position: (Q, K) int64, positions of the gallery images by rank; -1 past the last that the query sees.
        distance: (Q, K) float64, their distances: 1 - cos, or the Euclidean distance; NaN past the last.
        removed: (Q,) int64, number of gallery images that the protocol makes the query skip.
    """

    position: Positions
    distance: NDArray[np.float64]
    removed: Positions


def list_nearest(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    trial: Trial,
    asked: Positions,
    *,
    count: int = 10,
    distance: str = "cosine",
) -> Nearest:
    """Return the nearest gallery images of some queries of a trial, without those that the protocol removes.

    Ties are ranked in the gallery's order, by the same keys as the scores.

    Args:
        query: What ``asked`` points into.
        gallery: What ``trial.gallery`` points into; usually the same object.
        protocol: Says which images a query skips.
        trial: Says which images are the gallery.
        asked: (Q,) positions of the queries.
        count: Number K of images for each query.
        distance: ``cosine`` or ``euclidean``.

    Raises:
        VIReIDError: For an unknown distance or a count below 1.
    """
    if count < 1:
        raise VIReIDError(f"count is {count}; a rank list has at least 1 image.")
    parts = []
    for part, distances, removed in measure_blocks(query, gallery, protocol, trial, asked, distance):
        keys = make_keys(distances, torch.arange(distances.shape[1], device=distances.device), 1)
        keys[:, :-1][removed] = LAST_KEY
        nearest = keys.topk(min(count, keys.shape[1] - 1), dim=1, largest=False).values
        column, seen = nearest & LOW_BITS, nearest < LAST_KEY
        column = column.masked_fill(~seen, 0)
        values = _as_distances(distances.gather(1, column), query, part, distance)
        padding = (0, count - column.shape[1])
        position = torch.from_numpy(trial.gallery)[column.cpu()].masked_fill(~seen.cpu(), -1)
        position = torch.nn.functional.pad(position, padding, value=-1)
        values = torch.nn.functional.pad(values.masked_fill(~seen.cpu(), torch.nan), padding, value=torch.nan)
        parts.append((position.numpy(), values.numpy(), removed.sum(dim=1).cpu().numpy()))
    if not parts:
        nobody = np.empty((0, count), dtype=np.int64)
        return Nearest(nobody, nobody.astype(np.float64), np.empty(0, dtype=np.int64))
    return Nearest(*(np.concatenate(part) for part in zip(*parts)))


def measure_pairs(
    query: Embeddings, gallery: Embeddings, protocol: Protocol, trial: Trial, distance: str = "cosine"
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield blocks of all pairs of a trial: distances (B, G), whether they are true, whether they are removed.

    Distances are 1 - cos, or Euclidean. Images of nobody (identity -1) are in no true pair.
    """
    identity = gallery.identity.numpy()[trial.gallery]
    for part, distances, removed in measure_blocks(query, gallery, protocol, trial, trial.query, distance):
        asked = query.identity.numpy()[part][:, None]
        values = _as_distances(distances, query, part, distance).numpy()
        yield values, (asked == identity) & (asked >= 0), removed.cpu().numpy()


def measure_blocks(
    query: Embeddings, gallery: Embeddings, protocol: Protocol, trial: Trial, asked: Positions, distance: str
) -> Iterator[tuple[Positions, Tensor, Tensor]]:
    """Yield blocks of queries: positions (B,), values (B, G) that rank the gallery, and which are removed (B, G)."""
    check_distance(distance)
    columns = trial.gallery
    identity, camera = gallery.identity.numpy()[columns], gallery.camera.numpy()[columns]
    step = max(1, _VALUES_AT_ONCE // len(columns))
    with exact_float32(gallery.device):
        distances = EmbeddingDistances(query, gallery, columns, distance)
        for begin in range(0, len(asked), step):
            part = asked[begin : begin + step]
            own = query.identity.numpy()[part][:, None]
            same = (own == identity) & (own >= 0)
            removed = is_removed(protocol.removal, same, query.camera.numpy()[part][:, None], camera)
            removed = np.broadcast_to(removed, same.shape).copy()
            yield part, distances(part, columns), torch.from_numpy(removed).to(gallery.device)


def _as_distances(values: Tensor, query: Embeddings, asked: Positions, distance: str) -> Tensor:
    """Return distances (B, C), float64 on the CPU, of the values that rank them."""
    if distance == "cosine":
        return 1 + values.double().cpu()
    own = query.rows(torch.from_numpy(asked), distance).double().square().sum(dim=1, keepdim=True)
    return (values.double() + own.to(values.device)).clamp(min=0).sqrt().cpu()
