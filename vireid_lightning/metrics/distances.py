"""Distances between queries and gallery images in full float32, as blocks that rank a gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.parallel import Result, map_parts

Positions = NDArray[np.int64]
Known = tuple[Positions, Tensor]

DISTANCES = ("cosine", "euclidean")

# Values of embeddings that are prepared at a time.
_VALUES_AT_ONCE = 2**20


def check_distance(distance: str) -> None:
    """Raise a :class:`VIReIDError` for an unknown distance."""
    if distance not in DISTANCES:
        raise VIReIDError(f"The distance '{distance}' is unknown; choose one of {', '.join(DISTANCES)}.")


def distance_block(query: Tensor, gallery: Tensor, distance: str, gallery_square: Tensor | None = None) -> Tensor:
    """Return (Q, G) values that rank a gallery as the distance does, for rows prepared by :meth:`Embeddings.rows`.

    Cosine: -cos. Euclidean: ||g||^2 - 2 <q, g>, the squared distance less the query's own square, which changes no
    order within a row and would cost digits.
    """
    if gallery.device.type == "cpu":
        # NumPy brings OpenBLAS, a third faster on AMD processors than the MKL of PyTorch, and no slower on others.
        product = torch.from_numpy(np.matmul(query.numpy(), gallery.numpy().T))
    else:
        product = query @ gallery.T
    if distance == "cosine":
        return product.neg_()
    return product.mul_(-2).add_(gallery.square().sum(dim=1) if gallery_square is None else gallery_square)


def to_ordered_bits(values: Tensor) -> Tensor:
    """Return int32 numbers that are ordered as float32 values are; both zeros become the same."""
    bits = (values + 0.0).view(torch.int32)  # -0 + 0 is 0: both zeros tie
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def from_ordered_bits(bits: Tensor) -> Tensor:
    """Return the float32 values of what :func:`to_ordered_bits` made.

    Example:
        >>> from_ordered_bits(to_ordered_bits(torch.tensor([-2.5, 0.0, 3.0]))).tolist()
        [-2.5, 0.0, 3.0]
    """
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)


#: Measures queries against gallery images: takes positions of queries (B,) and of gallery images (C,), and None or what
#: has been measured before, and returns (B, C) values that rank the images; see :class:`EmbeddingDistances`.
Distances = Callable[[Positions, Positions, Known | None], Tensor]


class EmbeddingDistances:
    """Distances of embeddings, of which equal ones are measured once.

    A matrix product may round the same sum differently by its place in the matrix. If copies in a gallery, or the one
    embedding of a collapsed network, were measured apart, that would decide ties instead of the gallery's order.

    Args:
        query: Embeddings of the queries.
        gallery: Embeddings of the gallery images.
        used: Positions of all gallery images that will be measured.
        distance: ``cosine`` or ``euclidean``.
    """

    def __init__(self, query: Embeddings, gallery: Embeddings, used: Positions, distance: str) -> None:
        self.query, self.gallery, self.distance = query, gallery, distance
        #: (G,) position of the first used image with the same embedding.
        self.first_equal = np.arange(len(gallery))
        self.first_equal[used] = used[find_first_equal(gallery, used, distance)]
        self.has_copies = bool((self.first_equal[used] != used).any())
        self._listed: Positions | None = None

    def __call__(self, asked: Positions, listed: Positions, known: Known | None = None) -> Tensor:
        """Return (B, C) values, which the caller may change, that rank gallery images for each query.

        Args:
            asked: (B,) positions of the queries.
            listed: (C,) positions of the gallery images.
            known: Gallery positions (B, P), -1 for none, whose distances (B, P) have been measured before; images with
                the same embedding get these very values.
        """
        if listed is not self._listed:  # one chunk meets many blocks of queries
            self._prepare(listed)
        queries = self.query.rows(torch.from_numpy(asked), self.distance).to(self.gallery.device)
        distances = distance_block(queries, self._rows, self.distance, self._square)
        if known is not None:
            place = find_places(self._distinct, np.where(known[0] < 0, -1, self.first_equal[known[0]]))
            row, slot = (place >= 0).nonzero()
            rows, slots, columns = map(torch.from_numpy, (row, slot, place[row, slot]))
            distances[rows, columns] = known[1][rows, slots]
        return distances if self._back is None else distances.index_select(1, self._back)

    def _prepare(self, listed: Positions) -> None:
        self._listed, self._distinct, self._back = listed, self.first_equal[listed], None
        if self.has_copies:
            self._distinct, back = np.unique(self._distinct, return_inverse=True)
            self._back = torch.from_numpy(back).to(self.gallery.device)
        self._rows = torch.empty(len(self._distinct), self.gallery.size, device=self.gallery.device)
        _map_rows(lambda place, rows: self._rows[place].copy_(rows), self.gallery, self._distinct, self.distance)
        self._square = self._rows.square().sum(dim=1) if self.distance == "euclidean" else None


def find_places(values: Positions, wanted: Positions) -> Positions:
    """Return the place of each wanted value in a vector of distinct values, -1 where it is not there.

    Example:
        >>> find_places(np.array([7, 3, 5]), np.array([[5, 7], [4, 3]]))
        array([[ 2,  0],
               [-1,  1]])
    """
    order = np.argsort(values)
    place = order[np.searchsorted(values, wanted, sorter=order).clip(max=len(order) - 1)]
    found: Positions = np.where(values[place] == wanted, place, -1)
    return found


def find_first_equal(embeddings: Embeddings, positions: Positions, distance: str) -> Positions:
    """Return for each of some embeddings the place of the first that equals it once prepared for the distance.

    Args:
        embeddings: Where the rows are.
        positions: (N,) which rows, in which order.
        distance: ``cosine`` or ``euclidean``.

    Returns:
        (N,) places in ``positions``; a row's own place where none before it is equal.

    Example:
        >>> find_first_equal(Embeddings(torch.eye(2)[[0, 1, 0]], [4, 5, 6]), np.arange(3), "cosine")
        array([0, 1, 0])
    """

    def add_bits(_: slice, rows: Tensor) -> Tensor:
        return (rows + 0.0).view(torch.int32).sum(dim=1).cpu()  # -0 + 0 is 0

    def digest(_: slice, rows: Tensor) -> list[bytes]:
        return [hashlib.blake2b(row, digest_size=16).digest() for row in (rows + 0.0).cpu().numpy()]

    # Rows whose sums of bits differ are not equal: digests, which take longer, are for the others.
    sums = torch.cat(_map_rows(add_bits, embeddings, positions, distance)).numpy()
    _, group, size = np.unique(sums, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(size[group] > 1)
    digests = chain.from_iterable(_map_rows(digest, embeddings, positions[alike], distance))
    first: dict[bytes, int] = {}
    places = np.arange(len(positions))
    places[alike] = [first.setdefault(*row) for row in zip(digests, alike.tolist())]
    return places


def _map_rows(
    function: Callable[[slice, Tensor], Result], embeddings: Embeddings, positions: Positions, distance: str
) -> list[Result]:
    """Return ``function`` of slices of positions and their prepared rows, of a size for the cache."""
    step = max(1, _VALUES_AT_ONCE // embeddings.size)
    places = [slice(begin, begin + step) for begin in range(0, len(positions), step)]

    def call(place: slice) -> Result:
        return function(place, embeddings.rows(torch.from_numpy(positions[place]), distance))

    return map_parts(call, places, embeddings.device)
