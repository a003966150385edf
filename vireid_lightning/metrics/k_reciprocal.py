"""k-reciprocal neighbourhoods (Zhong et al., CVPR 2017) as sparse rows, in blocks, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vireid_lightning.metrics.parallel import map_parts, thread_count

# What a block takes at most, so that a CPU thread finds it in the cache.
_BYTES_AT_ONCE = 2**23


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


def row_blocks(count: int, bytes_per_row: int, block_bytes: int) -> Iterator[slice]:
    """Yield slices of ``count`` rows that stay within ``block_bytes``, of one row at least.

    They are no larger than what serves every CPU thread.
    """
    threads = thread_count()
    step = max(1, min(block_bytes // bytes_per_row, -(-count // threads), _BYTES_AT_ONCE // bytes_per_row))
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


def taken(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values[index]``, along the first dimension; on the CPU several times as fast as indexing."""
    return values.index_select(0, index.flatten()).view(*index.shape, *values.shape[1:])


def marked(table: Tensor) -> Tensor:
    """Return where a bool vector is true; on the CPU several times as fast as ``Tensor.nonzero``."""
    if table.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(table.numpy()))
    return table.nonzero()[:, 0]


def mutual(nearest: Tensor, block_bytes: int) -> Tensor:
    """Return which of each row's neighbours have the row among their own, (N, n) bool.

    Args:
        nearest: (N, n) int64, each row's n nearest, itself included.
        block_bytes: Memory to stay within.
    """
    count, n = nearest.shape
    own = torch.arange(count, device=nearest.device)[:, None, None]
    blocks = row_blocks(count, 9 * n * n, block_bytes // thread_count())

    result = torch.empty_like(nearest, dtype=torch.bool)

    def fill(part: slice) -> None:
        result[part] = (taken(nearest, nearest[part]) == own[part]).any(dim=2)

    map_parts(fill, blocks, nearest.device)
    return result


def expanded_weights(
    nearest: Tensor, half: int, weigh: Callable[[slice, Tensor, Tensor], Tensor], block_bytes: int
) -> SparseRows:
    """Return V: over each row's expanded k-reciprocal set, weights that sum to 1.

    R(i, n) are those of i's n nearest whose own n nearest contain i. R(i) with n = all columns of ``nearest`` is
    expanded by each S_j = R(j, half), j in R(i), of which more than two thirds lie in R(i).

    Args:
        nearest: (N, n) int64, each row's n nearest, itself first.
        half: Neighbours that the expansion sets are drawn from, itself included.
        weigh: Takes a block of rows and the entries' row within the block and column; returns their weights.
        block_bytes: Memory to stay within.
    """
    count, n = nearest.shape
    closest = nearest[:, :half].contiguous()
    in_all, in_half = mutual(nearest, block_bytes), mutual(closest, block_bytes)

    def of_block(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        near, own = nearest[part], in_all[part]
        rows = len(near)
        first = count * torch.arange(rows, device=near.device)
        table = torch.zeros(rows * count, dtype=torch.bool, device=near.device)
        table[(first[:, None] + near)[own]] = True
        members = first[:, None, None] + taken(closest, near)  # (rows, n, half), places in the table
        counted = taken(in_half, near) & own[:, :, None]
        shared = (taken(table, members) & counted).sum(dim=2)
        accepted = counted & (3 * shared > 2 * counted.sum(dim=2))[:, :, None]
        table[members[accepted]] = True
        place = marked(table)
        row, column = place // count, place % count
        weight = weigh(part, row, column)
        total = weight.new_zeros(rows).scatter_add_(0, row, weight)
        return torch.bincount(row, minlength=rows), column, weight / taken(total, row)

    blocks = row_blocks(count, 12 * n * half + 2 * count, block_bytes // thread_count())
    return SparseRows.join(map_parts(of_block, blocks, nearest.device))


def average_rows(rows: SparseRows, nearest: Tensor, block_bytes: int) -> SparseRows:
    """Return for each row the mean of the rows of its nearest: local query expansion.

    Args:
        rows: N sparse rows.
        nearest: (N, k2) int64.
        block_bytes: Memory to stay within.
    """
    count, k2 = nearest.shape
    length = rows.start.diff()

    def of_block(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        near = nearest[part]
        owner, entry = concatenated_ranges(taken(rows.start, near.flatten()), taken(length, near.flatten()))
        place = owner // k2 * count + taken(rows.column, entry)
        table = rows.value.new_zeros(len(near) * count).scatter_add_(0, place, taken(rows.value, entry))
        place = marked(table != 0)
        return torch.bincount(place // count, minlength=len(near)), place % count, taken(table, place) / k2

    per_row = 6 * count + 24 * k2 * int(length.max())
    blocks = row_blocks(count, per_row, block_bytes // thread_count())
    return SparseRows.join(map_parts(of_block, blocks, nearest.device))


def overlap(left: SparseRows, right: SparseRows, count: int, block_bytes: int) -> Tensor:
    """Return (L, R) sums over columns of min(left_i, right_j), of which only entries that both have are visited.

    Args:
        left: L sparse rows.
        right: R sparse rows.
        count: Number of columns.
        block_bytes: Memory to stay within, beside the result.
    """
    device, size = left.value.device, len(right.start) - 1
    # The right rows by column: entries of column k stand from first[k] on.
    order = right.column.argsort(stable=True)
    row_of = torch.repeat_interleave(torch.arange(size, device=device), right.start.diff())[order]
    value_of = right.value[order]
    length = torch.bincount(right.column, minlength=count)
    first = length.cumsum(0) - length
    result = torch.zeros(len(left.start) - 1, size, dtype=left.value.dtype, device=device)
    terms = functional.pad(taken(length, left.column).cumsum(0), (1, 0))[left.start]

    def add_block(rows: tuple[int, int]) -> None:
        begin, end = rows
        entries = slice(int(left.start[begin]), int(left.start[end]))
        column = left.column[entries]
        row = torch.repeat_interleave(torch.arange(end - begin, device=device), left.start[begin : end + 1].diff())
        owner, partner = concatenated_ranges(taken(first, column), taken(length, column))
        shared = torch.minimum(taken(left.value[entries], owner), taken(value_of, partner))
        result[begin:end].view(-1).scatter_add_(0, taken(row * size, owner) + taken(row_of, partner), shared)

    limit = max(1, min(block_bytes // thread_count(), _BYTES_AT_ONCE) // 40)
    map_parts(add_block, list(_balanced_blocks(terms.cpu(), limit)), device)
    return result


def _balanced_blocks(terms: Tensor, limit: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows with up to ``limit`` terms, of one row at least; ``terms`` counts those before each row."""
    begin, count = 0, len(terms) - 1
    while begin < count:
        end = int(torch.searchsorted(terms, terms[begin] + limit, right=True)) - 1
        end = min(max(end, begin + 1), count)
        yield begin, end
        begin = end


def concatenated_ranges(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for ranges put end to end, which range each element belongs to, and the element itself.

    Example:
        >>> concatenated_ranges(torch.tensor([5, 0]), torch.tensor([2, 1]))
        (tensor([0, 0, 1]), tensor([5, 6, 0]))
    """
    owner = torch.repeat_interleave(torch.arange(len(start), device=start.device), length)
    offset = start - (length.cumsum(0) - length)
    return owner, torch.arange(len(owner), device=start.device) + taken(offset, owner)
