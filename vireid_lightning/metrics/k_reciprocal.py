"""k-reciprocal neighbourhoods (Zhong et al., CVPR 2017) as sparse rows, in blocks, on any device.

Re-ranking and the Jaccard distance are made of the same steps: find each image's nearest (:func:`find_nearest`), weigh
its expanded k-reciprocal set (:func:`weigh_neighbourhoods`), and add up what two sets share (:func:`map_overlaps`).
They differ in the distance, and in which pairs of images they compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.parallel import find_true, gather_rows, gram_matrix, map_parts, split_rows

Result = TypeVar("Result")

# Values of embeddings that are gathered at a time for inner products of single pairs.
_VALUES_AT_ONCE = 2**18


class SparseRows(NamedTuple):
    """A matrix by rows: row i has the entries ``start[i]`` to ``start[i + 1]``, their columns ascending."""

    start: Tensor
    column: Tensor
    value: Tensor

    @staticmethod
    def join(blocks: Sequence[tuple[Tensor, Tensor, Tensor]]) -> SparseRows:
        """Put blocks of rows together, given as the rows' lengths, columns and values."""
        lengths, columns, values = zip(*blocks)
        start = functional.pad(torch.cat(lengths).cumsum(0), (1, 0))
        return SparseRows(start, torch.cat(columns), torch.cat(values))


class InnerProducts:
    """Inner products of all pairs of embeddings, made in blocks when they are asked for.

    Args:
        images: (N, D).
        keep: Whether to make all N x N at once and keep them instead of the embeddings.
    """

    def __init__(self, images: Tensor, *, keep: bool = False) -> None:
        self.keep = keep
        #: The products (N, N) where they are kept, the images (N, D) otherwise.
        self.matrix = gram_matrix(images) if keep else images
        #: (N,) squared lengths.
        self.square = self.matrix.diagonal().clone() if keep else images.square().sum(dim=1)

    def block(self, rows: slice, columns: slice = slice(None)) -> Tensor:
        """Return the products of some images with others, as a view where they are kept."""
        return self.matrix[rows, columns] if self.keep else self.matrix[rows] @ self.matrix[columns].T

    def pairs(self, row: Tensor, column: Tensor) -> Tensor:
        """Return the products of single pairs, (P,), for two vectors of positions."""
        if self.keep:
            return gather_rows(self.matrix.view(-1), row * len(self.matrix) + column)
        step = max(1, _VALUES_AT_ONCE // self.matrix.shape[1])
        parts = zip(row.split(step), column.split(step))
        return torch.cat([torch.einsum("nd,nd->n", self.matrix[left], self.matrix[right]) for left, right in parts])


def check_embeddings(images: Tensor, name: str) -> None:
    """Raise a :class:`VIReIDError` unless ``images`` is a matrix of finite floating-point values.

    Args:
        images: What should be (N, D), neither of them 0.
        name: What the error calls them, in the plural.
    """
    if images.ndim != 2 or 0 in images.shape or not images.is_floating_point():
        raise VIReIDError(
            f"The {name} must be a matrix (N, D) of a floating type with N of at least 1 and D of at least 1, but are "
            f"{tuple(images.shape)} of {images.dtype}."
        )
    # A finite sum has finite terms; it is quicker than a look at each of them.
    if not bool(torch.isfinite(images.sum())) and not bool(torch.isfinite(images).all()):
        rows = (~torch.isfinite(images).all(dim=1)).nonzero()
        raise VIReIDError(
            f"{len(rows)} of {len(images)} {name} are not finite, the first is row {int(rows[0])}; the network that "
            "made them has diverged, or the images are broken."
        )


def find_nearest(
    count: int, number: int, score: Callable[[slice], Tensor], device: torch.device, block_bytes: int
) -> Tensor:
    """Return the nearest of each image, (count, number) int64: itself first, also where copies of it exist.

    Args:
        count: Number of images N.
        number: Neighbours to return, the image included; all N where there are fewer.
        score: Takes a slice of images and returns new values (rows, N), the larger the nearer; they are overwritten.
        device: Where the values lie.
        block_bytes: Memory to stay within.
    """
    nearest = torch.empty(count, min(number, count), dtype=torch.int64, device=device)

    def fill(part: slice) -> None:
        scores = score(part)
        scores.diagonal(part.start).fill_(torch.inf)
        nearest[part] = scores.topk(nearest.shape[1], dim=1).indices

    map_parts(fill, split_rows(torch.full_like(nearest[:, 0], 12 * count), block_bytes), device)
    return nearest


def weigh_neighbourhoods(
    nearest: Tensor, k1: int, k2: int, half: int, weigh: Callable[[Tensor, Tensor], Tensor], block_bytes: int
) -> SparseRows:
    """Return V: weights over each image's expanded k-reciprocal set that sum to 1, averaged over its nearest images.

    R(i, n) are those of i's n nearest, i included, whose own n nearest contain i. R(i, k1) is expanded by each
    S_j = R(j, half), j in R(i, k1), of which more than two thirds lie in R(i, k1).

    Args:
        nearest: (N, n) int64, each image's nearest, itself first.
        k1: Neighbours that are considered, the image included; all of ``nearest`` where there are fewer.
        k2: Images, itself included, that the weights of an image are averaged over: local query expansion.
        half: Neighbours that the expansion sets are drawn from, the image included; at most ``k1``.
        weigh: Takes the entries' rows and columns, and returns their weights before they are divided by their sum.
        block_bytes: Memory to stay within.
    """
    expanded = _expand(nearest[:, :k1].contiguous(), nearest[:, :half].contiguous(), weigh, block_bytes)
    return expanded if k2 == 1 else _average(expanded, nearest[:, :k2].contiguous(), block_bytes)


def _find_mutual(nearest: Tensor, block_bytes: int) -> Tensor:
    """Return which of each row's neighbours have the row among their own, (N, n) bool."""
    own = torch.arange(len(nearest), device=nearest.device)[:, None, None]
    mutual = torch.empty_like(nearest, dtype=torch.bool)

    def fill(part: slice) -> None:
        mutual[part] = (gather_rows(nearest, nearest[part]) == own[part]).any(dim=2)

    map_parts(fill, split_rows(torch.full_like(nearest[:, 0], 9 * nearest.shape[1] ** 2), block_bytes), nearest.device)
    return mutual


def _expand(
    nearest: Tensor, closest: Tensor, weigh: Callable[[Tensor, Tensor], Tensor], block_bytes: int
) -> SparseRows:
    """Return the weights of each row's expanded k-reciprocal set, divided by their sum."""
    count = len(nearest)
    in_all, in_half = _find_mutual(nearest, block_bytes), _find_mutual(closest, block_bytes)

    def expand_block(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        near, own = nearest[part], in_all[part]
        rows = len(near)
        first = count * torch.arange(rows, device=near.device)
        table = torch.zeros(rows * count, dtype=torch.bool, device=near.device)
        table[(first[:, None] + near)[own]] = True
        members = first[:, None, None] + gather_rows(closest, near)  # (rows, n, half), places in the table
        counted = gather_rows(in_half, near) & own[:, :, None]
        shared = (gather_rows(table, members) & counted).sum(dim=2)
        accepted = counted & (3 * shared > 2 * counted.sum(dim=2))[:, :, None]
        table[members[accepted]] = True
        place = find_true(table)
        row, column = place // count, place % count
        weight = weigh(row + part.start, column)
        total = weight.new_zeros(rows).scatter_add_(0, row, weight)
        return torch.bincount(row, minlength=rows), column, weight / gather_rows(total, row)

    row_bytes = torch.full_like(nearest[:, 0], 12 * nearest.shape[1] * closest.shape[1] + 2 * count)
    return SparseRows.join(map_parts(expand_block, split_rows(row_bytes, block_bytes), nearest.device))


def _average(rows: SparseRows, nearest: Tensor, block_bytes: int) -> SparseRows:
    """Return for each row the mean of the rows of its nearest."""
    count, number = nearest.shape
    length = rows.start.diff()

    def average_block(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        near = nearest[part]
        owner, entry = list_ranges(gather_rows(rows.start, near.flatten()), gather_rows(length, near.flatten()))
        place = owner // number * count + gather_rows(rows.column, entry)
        table = rows.value.new_zeros(len(near) * count).scatter_add_(0, place, gather_rows(rows.value, entry))
        place = find_true(table != 0)
        return torch.bincount(place // count, minlength=len(near)), place % count, gather_rows(table, place) / number

    row_bytes = torch.full_like(length, 6 * count + 24 * number * int(length.max()))
    return SparseRows.join(map_parts(average_block, split_rows(row_bytes, block_bytes), nearest.device))


def map_overlaps(
    weights: SparseRows, finish: Callable[[slice, slice, Tensor], Result], block_bytes: int, queries: int | None = None
) -> list[Result]:
    """Return ``finish`` of each block of overlaps s(i, j), the sum over columns of min(V_i, V_j).

    Each column of V lists the images that share it. Every entry (i, k) meets the entries (j, k) of its partners j, so
    that only terms above 0 are visited.

    Args:
        weights: V, (N, N).
        finish: Takes the rows of a block, the columns of a block and the overlaps of both.
        block_bytes: Memory to stay within.
        queries: The first ``queries`` rows meet all others; None: each row meets those after it.

    Returns:
        What ``finish`` returned, in the order of the rows.
    """
    start, column, value = weights
    count, split, bounds = len(start) - 1, queries or 0, start.cpu()
    row = torch.repeat_interleave(torch.arange(count, device=start.device), start.diff())
    # The partners' entries by column and within one by row; those of column k end before end[k].
    partner = slice(int(bounds[split]), None)
    order = column[partner].argsort(stable=True)
    partner_row, partner_value = gather_rows(row[partner], order), gather_rows(value[partner], order)
    length = torch.bincount(column[partner], minlength=count)
    end = length.cumsum(0)
    if queries is None:
        first = torch.empty_like(order)
        first[order] = torch.arange(1, len(order) + 1, device=order.device)
    else:
        first = gather_rows(end - length, column[: partner.start])
    terms = gather_rows(end, column[: len(first)]) - first
    rows = count if queries is None else queries
    terms_before = functional.pad(terms.cumsum(0), (1, 0))[start[: rows + 1]]

    def add_up(part: slice) -> Result:
        entries = slice(int(bounds[part.start]), int(bounds[part.stop]))
        columns = slice(max(part.start, split), count)
        width = columns.stop - columns.start
        owner, entry = list_ranges(first[entries], terms[entries])
        shared = torch.minimum(gather_rows(value[entries], owner), gather_rows(partner_value, entry))
        place = (row[entries] - part.start) * width - columns.start
        table = value.new_zeros(part.stop - part.start, width)
        table.view(-1).scatter_add_(0, gather_rows(place, owner) + gather_rows(partner_row, entry), shared)
        return finish(part, columns, table)

    row_bytes = 40 * terms_before.diff() + 10 * (count - split)
    return map_parts(add_up, split_rows(row_bytes, block_bytes), start.device)


def list_ranges(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for ranges put end to end, which range each element belongs to, and the element itself.

    Example:
        >>> list_ranges(torch.tensor([5, 0]), torch.tensor([2, 1]))
        (tensor([0, 0, 1]), tensor([5, 6, 0]))
    """
    owner = torch.repeat_interleave(torch.arange(len(start), device=start.device), length)
    offset = start - (length.cumsum(0) - length)
    return owner, torch.arange(len(owner), device=start.device) + gather_rows(offset, owner)
