"""Images with the very same embedding: copies in a gallery, or all of it where a network has collapsed.

A matrix product may round their distances to a query differently, by where they stand in the matrix. A tie would then
be decided by that instead of the gallery's order, and a network that says the same of every image could score 100 %.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vireid_lightning.metrics.embeddings import Embeddings
from vireid_lightning.metrics.parallel import map_parts

_VALUES_AT_ONCE = 2**20


def first_equal_rows(embeddings: Embeddings, positions: Tensor, distance: str) -> Tensor | None:
    """Return for each row which is the first that equals it, or None where all rows differ.

    Args:
        embeddings: Whose rows, compared as float32 values; 0 equals -0.
        positions: (N,) which rows, in which order.
        distance: ``cosine`` or ``euclidean``. Under cosine a power of two as a factor, which changes no digit of the
            normalised row, does not count.

    Returns:
        (N,) int64 on the CPU, places in ``positions``; a row's own place where none before it is equal.

    Example:
        >>> first_equal_rows(Embeddings(torch.eye(2)[[0, 1, 0]], [4, 5, 6]), torch.arange(3), "cosine")
        tensor([0, 1, 0])
    """
    step = max(1, _VALUES_AT_ONCE // embeddings.size)
    factors = torch.randint(-(2**62), 2**62, (embeddings.size,), generator=torch.Generator().manual_seed(0)) | 1
    factors = factors.to(embeddings.device)

    def bits(places: Tensor) -> Tensor:
        rows = embeddings.rows(positions[places], "euclidean") + 0.0  # -0 + 0 is 0
        if distance == "cosine":
            exponent = torch.frexp(rows.abs().amax(dim=1, keepdim=True)).exponent
            rows = torch.ldexp(rows, -exponent.clamp(min=-120))
        return rows.view(torch.int32)

    sums = torch.empty(len(positions), dtype=torch.int64)

    def add(places: Tensor) -> None:
        sums[places] = (bits(places).long() * factors).sum(dim=1).cpu()  # of whole numbers, so the same in any order

    map_parts(add, torch.arange(len(positions)).split(step), embeddings.device)
    first, places = first_of_each(sums), torch.arange(len(positions))
    if torch.equal(first, places):
        return None
    # The same sum is no proof yet.
    for part in (first != places).nonzero().squeeze(1).split(step):
        differ = (bits(part) != bits(first[part])).any(dim=1).cpu()
        first[part[differ]] = part[differ]
    return first


def first_of_each(values: Tensor) -> Tensor:
    """Return for each of (N,) values where its like stands first.

    Example:
        >>> first_of_each(torch.tensor([7, 5, 7]))
        tensor([0, 1, 0])
    """
    _, group = values.unique(return_inverse=True)
    places = torch.arange(len(values))
    return torch.full_like(places, len(values)).scatter_reduce_(0, group, places, "amin")[group]
