"""Distances in full float32, as blocks that rank a gallery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, combinations_with_replacement

import numpy as np
import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.parallel import map_parts

DISTANCES = ("cosine", "euclidean")

_TILE_ROWS = 256


def check_distance(distance: str) -> None:
    """Raise a :class:`VIReIDError` for an unknown distance."""
    if distance not in DISTANCES:
        raise VIReIDError(f"The distance '{distance}' is unknown; choose one of {', '.join(DISTANCES)}.")


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute matrix products in full float32: no autocast, no TF32, no gradients."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def inner_products(query: Tensor, gallery: Tensor) -> Tensor:
    """Return (Q, G) inner products."""
    if gallery.device.type == "cpu":
        # NumPy brings OpenBLAS, a third faster on AMD processors than the MKL of PyTorch, and no slower on others.
        return torch.from_numpy(np.matmul(query.numpy(), gallery.numpy().T))
    return query @ gallery.T


def gram_matrix(*parts: Tensor) -> Tensor:
    """Return (N, N) inner products of all pairs of float32 rows, of all parts put together, symmetric.

    On the CPU in square tiles that the cache holds; what is below the diagonal is a copy of what is above.
    """
    device = parts[0].device
    if device.type != "cpu":
        images = torch.cat(parts)
        return images @ images.T
    tiles = [tile for part in parts for tile in part.split(_TILE_ROWS)]
    end = list(accumulate(len(tile) for tile in tiles))
    place = [slice(stop - len(tile), stop) for tile, stop in zip(tiles, end)]
    # NumPy asks for large pages where the system has them; a new matrix of small ones costs an eighth of the product.
    product = torch.from_numpy(np.empty((end[-1], end[-1]), dtype=np.float32))

    def fill(pair: tuple[int, int]) -> None:
        row, column = pair
        tile = product[place[row], place[column]]
        torch.mm(tiles[row], tiles[column].T, out=tile)
        if row == column:  # two sums of the same products may be rounded in different orders
            tile.copy_(tile.triu() + tile.triu(1).T)
        else:
            product[place[column], place[row]] = tile.T

    map_parts(fill, combinations_with_replacement(range(len(tiles)), 2), device)
    return product


def distance_block(query: Tensor, gallery: Tensor, distance: str, gallery_square: Tensor | None = None) -> Tensor:
    """Return (Q, G) values that rank a gallery as the distance does, for rows prepared by :meth:`Embeddings.rows`.

    Cosine: -cos. Euclidean: ||g||^2 - 2 <q, g>, the squared distance less the query's own square, which changes no
    order within a row and would cost digits.
    """
    product = inner_products(query, gallery)
    if distance == "cosine":
        return product.neg_()
    square = gallery.square().sum(dim=1) if gallery_square is None else gallery_square
    return product.mul_(-2).add_(square)
