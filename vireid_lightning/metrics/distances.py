"""Distances in full float32, as blocks that rank a gallery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from vireid_lightning.errors import VIReIDError

DISTANCES = ("cosine", "euclidean")

_MIRRORED_ROWS = 512


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


def gram_matrix(images: Tensor) -> Tensor:
    """Return (N, N) inner products of all pairs of float32 rows; half of the work on the CPU."""
    if images.device.type != "cpu":
        return images @ images.T
    # BLAS writes one triangle, in columns; the transpose is the other one, in rows. Mirrored in blocks, since whole
    # columns would miss the cache with every value.
    product = torch.from_numpy(ssyrk(1.0, images.numpy().T, trans=1, lower=1).T)
    for begin in range(0, len(images), _MIRRORED_ROWS):
        rows = slice(begin, begin + _MIRRORED_ROWS)
        product[begin + _MIRRORED_ROWS :, rows] = product[rows, begin + _MIRRORED_ROWS :].T
        block = product[rows, rows]
        block.copy_(block.triu() + block.triu(1).T)
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
