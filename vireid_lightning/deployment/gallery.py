"""Exact search: the gallery images nearest to each query, in blocks, as the evaluation ranks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vireid_lightning.deployment.rank_lists import RankLists
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.distances import (
    EmbeddingDistances,
    Positions,
    check_distance,
    from_ordered_bits,
    to_ordered_bits,
)
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.engine import WIDEST_CHUNK
from vireid_lightning.metrics.open_set import read_thresholds
from vireid_lightning.precision import exact_float32
from vireid_lightning.types import MODALITIES, check_modality

_LOW = 2**32 - 1
# A block of distances becomes keys of 64 bits, of which the search for the smallest makes a copy.
_BYTES_OF_A_DISTANCE = 24


class Gallery:
    """Embeddings that are searched.

    Args:
        embeddings: The gallery's embeddings; memory-mapped ones stay on disk where they are more than a chunk.
        distance: ``cosine`` or ``euclidean``; None: the one that the embeddings were made for, cosine where they do
            not say.
        modality: The modality whose images alone are searched, 0 visible, 1 infrared; None: all.

    Attributes:
        searched: Positions of the images that are searched.
        thresholds: What :func:`~vireid_lightning.deployment.threshold.choose_thresholds` found for this gallery; empty
            where nobody asked for it.

    Raises:
        VIReIDError: The distance is unknown, or not the one that the embeddings were made for.

    Example:
        >>> gallery = Gallery(Embeddings(torch.eye(3), identity=[4, 5, 6]))
        >>> gallery.search(Embeddings(torch.tensor([[0.1, 0.0, 0.9]]), identity=[-1]), k=2).position.tolist()
        [[2, 0]]
    """

    def __init__(self, embeddings: Embeddings, *, distance: str | None = None, modality: int | None = None) -> None:
        made_for = embeddings.about.get("distance")
        self.distance = str(distance or made_for or "cosine")
        check_distance(self.distance)
        if made_for is not None and self.distance != made_for:
            raise VIReIDError(
                f"{embeddings.origin} was embedded for the distance {made_for}, not {self.distance}; search it by that "
                f"one, or embed the images again with --distance {self.distance}."
            )
        self.embeddings = embeddings
        self.thresholds: Mapping[str, Any] = read_thresholds(embeddings)
        if self.thresholds.get("distance", self.distance) != self.distance:
            raise VIReIDError(
                f"{embeddings.origin} has thresholds for the distance {self.thresholds['distance']}, but is searched "
                f"by {self.distance}; choose them again with `vireid threshold`."
            )
        every = np.arange(len(embeddings))
        if modality is not None:
            check_modality(modality)
            every = np.flatnonzero(embeddings.modality.numpy() == modality)
            if not len(every):
                raise VIReIDError(f"{embeddings.origin} has no {MODALITIES[modality]} image to be searched.")
            if len(every) < len(embeddings):
                self.thresholds = {}  # they were measured among images of both modalities
        self.searched = every
        self._chunks = [every[begin : begin + WIDEST_CHUNK] for begin in range(0, len(every), WIDEST_CHUNK)]
        self._distances = EmbeddingDistances(embeddings, embeddings, every, self.distance)

    @classmethod
    def load(cls, path: str | Path, *, distance: str | None = None, modality: int | None = None) -> Gallery:
        """Read a gallery that ``vireid embed`` or ``lightning predict`` wrote."""
        return cls(Embeddings.load(path), distance=distance, modality=modality)

    def __len__(self) -> int:
        return len(self.searched)

    def search(self, query: Embeddings, k: int = 10, *, block_mb: int = 256) -> RankLists:
        """Return the ``k`` gallery images nearest to each query.

        All distances are computed in float32, as ``evaluate`` does; of equally near images the one that stands first
        in the gallery comes first.

        Args:
            query: Embeddings of the queries, of the same weights.
            k: Number of images; all where the gallery has fewer.
            block_mb: MiB that a block of distances may take.

        Raises:
            VIReIDError: The queries were embedded by other weights or for another distance, or ``k`` is below 1.
        """
        self.require_fit(query)
        check_number("k", k, 1, whole=True)
        check_number("block_mb", block_mb, 1, whole=True)
        count = min(k, len(self))
        widest = min(len(self), WIDEST_CHUNK)
        rows = max(1, block_mb * 2**20 // (_BYTES_OF_A_DISTANCE * widest))
        self._distances.query = query
        best = [torch.empty(0, dtype=torch.int64)] * -(-len(query) // rows)
        with exact_float32(self.embeddings.device):
            for chunk in self._chunks:  # each is read once
                place = torch.from_numpy(chunk).to(self.embeddings.device)
                for number in range(len(best)):
                    asked = np.arange(number * rows, min((number + 1) * rows, len(query)))
                    keys = to_ordered_bits(self._distances(asked, chunk)).long() << 32 | place
                    best[number] = _take_smallest(best[number], keys, count)
        keys = torch.cat(best).cpu()
        return self.make_rank_lists(query, (keys & _LOW).numpy(), from_ordered_bits((keys >> 32).int()))

    def make_rank_lists(self, query: Embeddings, position: Positions, value: Tensor) -> RankLists:
        """Return rank lists, given (Q, k) positions and the values by which they were ranked; see `distance_block`."""
        if self.distance == "cosine":
            distance = 1 + value
        else:
            square = query.rows(torch.arange(len(query)), self.distance).square().sum(dim=1, keepdim=True).cpu()
            distance = (value + square).clamp(min=0).sqrt()
        found = [self.thresholds.get(MODALITIES[kind], {}) if kind >= 0 else {} for kind in query.modality.tolist()]
        limit = np.array([item.get("threshold", np.nan) for item in found], dtype=np.float64)
        return RankLists(query, self.embeddings, position, distance.numpy(), limit, self.distance)

    def require_fit(self, query: Embeddings) -> None:
        """Refuse queries of other weights, of another length, or made for another distance."""
        gallery = self.embeddings
        if query.size != gallery.size or query.about.get("weights") != gallery.about.get("weights"):
            made_by = [_name_weights(part) for part in (query, gallery)]
            raise VIReIDError(
                f"The queries were embedded by {made_by[0]}, but {gallery.origin} by {made_by[1]}; their distances "
                "mean nothing: embed both with the same checkpoint."
            )
        for name in ("image_size", "interpolation"):
            prepared = [part.about.get(name) for part in (query, gallery)]
            if None not in prepared and prepared[0] != prepared[1]:
                raise VIReIDError(
                    f"The queries were embedded with the {name} {prepared[0]}, but {gallery.origin} with {prepared[1]}"
                    "; prepare both in the same way."
                )
        if query.about.get("distance", self.distance) != self.distance:
            raise VIReIDError(
                f"The queries were embedded for the distance {query.about['distance']}, but {gallery.origin} is "
                f"searched by {self.distance}; embed both for the same distance."
            )


def _take_smallest(best: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return (B, count) smallest of the best so far and of some keys (B, C), ascending; all keys of a row differ."""
    found = keys.topk(min(count, keys.shape[1]), largest=False).values
    merged = torch.cat([best, found], dim=1) if best.numel() else found
    return merged.sort(dim=1).values[:, :count]


def _name_weights(embeddings: Embeddings) -> str:
    about = embeddings.about
    named = f"{about['method']} " if about.get("method") else ""
    weights = f"weights {about['weights']}" if about.get("weights") else "weights that are not named"
    return f"{named}{weights} with {embeddings.size} values an image"
