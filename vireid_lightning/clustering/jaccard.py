"""k-reciprocal Jaccard distance (Zhong et al., CVPR 2017) as a sparse graph, blocked, on the device of the features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from vireid_lightning.errors import VIReIDError

# Elements of one block's table of rows against all images: 2**22 float32 values are 16 MiB.
_TABLE_ELEMENTS = 2**22
# Terms that are gathered at a time; each costs some 30 bytes while it lives.
_GATHERED_ELEMENTS = 2**22


class _Rows(NamedTuple):
    """A sparse matrix by rows: row i has the entries ``start[i]`` to ``start[i + 1]``, columns ascending."""

    start: Tensor
    column: Tensor
    value: Tensor


@torch.no_grad()
def jaccard_distance(features: Tensor, k1: int = 30, k2: int = 6, *, max_distance: float = 1.0) -> csr_matrix:
    """k-reciprocal Jaccard distance of all pairs that share a neighbourhood, without an N x N matrix.

    R(i, n) are those of i's n nearest (itself included) whose own n nearest contain i. R(i) = R(i, k1) is expanded by
    each S_j = R(j, round(k1 / 2) + 1), j in R(i), of which more than two thirds lie in R(i). V_i is the softmax over
    the expanded set of -(2 - 2 cos), averaged over i's k2 nearest, and with s = sum(min(V_i, V_j))

        d(i, j) = 1 - s / (2 - s).

    V has tens of entries a row, so most pairs have s = 0 and d = 1; they are not stored. Time is that of one blocked
    matrix product plus a few passes over V; the memory beyond the result is some tens of bytes for each entry of V.
    The values agree between devices up to rounding; on the CPU they are the same in every run.

    Args:
        features: (N, D), any floating type; L2-normalised here. Computed in float32, or float64 for float64.
        k1: Neighbours that are considered, at least 1; all N where there are fewer.
        k2: Neighbours that V is averaged over, at least 1; 1 leaves it as it is.
        max_distance: Pairs further apart are not stored. What DBSCAN needs is its ``eps``.

    Returns:
        (N, N) symmetric scipy CSR matrix with sorted indices. The diagonal is stored as 0; a pair that is not stored
        has distance 1 (or one above ``max_distance``).

    Raises:
        VIReIDError: If the features are no matrix of finite floats with a row, or an argument is out of range.

    Example:
        >>> graph = jaccard_distance(torch.eye(4).repeat_interleave(3, dim=0), k1=3, k2=1)
        >>> graph[0, 2], (0, 3) in zip(*graph.nonzero()), graph.nnz
        (np.float32(0.0), False, 36)
    """
    _check(features, k1, k2, max_distance)
    features = F.normalize(features if features.dtype == torch.float64 else features.float(), dim=1)
    count = len(features)
    half = min(round(k1 / 2) + 1, k1, count)  # Python rounds half to even, as the definition does
    k1, k2 = min(k1, count), min(k2, count)
    nearest = nearest_neighbours(features, max(k1, k2))
    weights = _reciprocal_weights(features, nearest[:, :k1], half)
    if k2 > 1:
        weights = _average(weights, nearest[:, :k2])
    return _overlaps(weights, max_distance)


@torch.no_grad()
def nearest_neighbours(features: Tensor, count: int) -> Tensor:
    """Return each row's nearest rows by inner product, nearest first, in blocks.

    A row's nearest is itself, also where copies of it exist.

    Args:
        features: (N, D) L2-normalised.
        count: Neighbours to return, at most N.

    Returns:
        (N, count) int64 on the device of the features.
    """
    blocks = []
    for begin, end in _blocks(len(features)):
        similarity = features[begin:end] @ features.T
        similarity.diagonal(begin).fill_(torch.inf)
        blocks.append(similarity.topk(count, dim=1).indices)
    return torch.cat(blocks)


def _check(features: Tensor, k1: int, k2: int, max_distance: float) -> None:
    if features.ndim != 2 or not len(features) or not features.is_floating_point():
        raise VIReIDError(
            f"The Jaccard distance needs features (N, D) of a floating type with N of at least 1, but got "
            f"{tuple(features.shape)} of {features.dtype}."
        )
    if not torch.isfinite(features).all():
        rows = (~torch.isfinite(features).all(dim=1)).nonzero().flatten()
        raise VIReIDError(
            f"{len(rows)} of {len(features)} features are not finite, the first is row {int(rows[0])}; "
            "the network that made them has diverged, or the images are broken."
        )
    if k1 < 1 or k2 < 1 or not 0 < max_distance <= 1:
        raise VIReIDError(
            f"The Jaccard distance got k1={k1}, k2={k2}, max_distance={max_distance}; k1 and k2 are at least 1, "
            "max_distance is above 0 and at most 1."
        )


def _blocks(count: int, gathered: int = 1) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of row blocks whose table against all columns, and ``gathered`` terms a row, stay small."""
    rows = max(1, min(_TABLE_ELEMENTS // count, _GATHERED_ELEMENTS // gathered))
    for begin in range(0, count, rows):
        yield begin, min(begin + rows, count)


def _segments(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for segments given by start and length, the segment and the position of each element."""
    owner = torch.repeat_interleave(torch.arange(len(start), device=start.device), length)
    offset = start - (length.cumsum(0) - length)
    return owner, torch.arange(len(owner), device=start.device) + offset[owner]


def _reciprocal(nearest: Tensor) -> Tensor:
    """Return which of each row's neighbours have the row among theirs, (N, n) bool."""
    count, n = nearest.shape
    own = torch.arange(count, device=nearest.device)[:, None, None]
    blocks = _blocks(count, n * n)
    return torch.cat([(nearest[nearest[begin:end]] == own[begin:end]).any(dim=2) for begin, end in blocks])


def _reciprocal_weights(features: Tensor, nearest: Tensor, half: int) -> _Rows:
    """Return V before averaging: the softmax over each expanded k-reciprocal set."""
    count = len(nearest)
    mutual, mutual_half = _reciprocal(nearest), _reciprocal(nearest[:, :half])
    lengths, columns, values = [], [], []
    for begin, end in _blocks(count, nearest.shape[1] * half):
        near, own = nearest[begin:end], mutual[begin:end]
        first = torch.arange(end - begin, device=features.device) * count
        table = torch.zeros((end - begin) * count, dtype=torch.bool, device=features.device)
        table[(first[:, None] + near)[own]] = True
        members = first[:, None, None] + nearest[near, :half]
        counted = mutual_half[near] & own[:, :, None]
        inside = (table[members] & counted).sum(dim=2)
        accepted = 3 * inside > 2 * counted.sum(dim=2)
        table[members[counted & accepted[:, :, None]]] = True
        row, column = table.view(end - begin, count).nonzero(as_tuple=True)
        weight = torch.exp(2 * _cosines(features, row + begin, column) - 2)
        total = torch.zeros(end - begin, dtype=weight.dtype, device=weight.device).scatter_add_(0, row, weight)
        lengths.append(torch.bincount(row, minlength=end - begin))
        columns.append(column)
        values.append(weight / total[row])
    return _join(lengths, columns, values)


def _cosines(features: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of pairs of rows."""
    pairs = max(1, _GATHERED_ELEMENTS // features.shape[1])
    parts = zip(left.split(pairs), right.split(pairs))
    return torch.cat([torch.einsum("nd,nd->n", features[a], features[b]) for a, b in parts])


def _average(weights: _Rows, nearest: Tensor) -> _Rows:
    """Return the mean of V over each row's nearest rows (query expansion)."""
    count, k2 = nearest.shape
    length = weights.start.diff()
    lengths, columns, values = [], [], []
    for begin, end in _blocks(count):
        source = nearest[begin:end].flatten()
        owner, position = _segments(weights.start[source], length[source])
        flat = owner // k2 * count + weights.column[position]
        table = torch.zeros((end - begin) * count, dtype=weights.value.dtype, device=flat.device)
        table.scatter_add_(0, flat, weights.value[position])
        row, column = table.view(end - begin, count).nonzero(as_tuple=True)
        lengths.append(torch.bincount(row, minlength=end - begin))
        columns.append(column)
        values.append(table[row * count + column] / k2)
    return _join(lengths, columns, values)


def _join(lengths: list[Tensor], columns: list[Tensor], values: list[Tensor]) -> _Rows:
    length = torch.cat(lengths)
    return _Rows(F.pad(length.cumsum(0), (1, 0)), torch.cat(columns), torch.cat(values))


def _overlaps(weights: _Rows, max_distance: float) -> csr_matrix:
    """Return 1 - s / (2 - s) with s = sum(min(V_i, V_j)) for the pairs with s above 0.

    Each column of V lists the images that share it. Every entry (i, k) meets the entries (j, k) with j > i, so a pair
    is added up once, from the terms that are not 0.
    """
    start, column, value = weights
    count, device = len(start) - 1, value.device
    order = torch.argsort(column, stable=True)  # by column, and within one by row
    row_of = torch.repeat_interleave(torch.arange(count, device=device), start.diff())
    sorted_row, sorted_value = row_of[order], value[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=device)
    column_end = torch.bincount(column, minlength=count).cumsum(0)
    partners = column_end[column] - place - 1
    rows, columns, distances = [], [], []
    for begin, end in _balanced_blocks(start, partners):
        entries = slice(int(start[begin]), int(start[end]))
        owner, position = _segments(place[entries] + 1, partners[entries])
        shared = torch.minimum(value[entries][owner], sorted_value[position])
        flat = (row_of[entries][owner] - begin) * count + sorted_row[position]
        table = torch.zeros((end - begin) * count, dtype=value.dtype, device=device).scatter_add_(0, flat, shared)
        found = table.nonzero().flatten()
        distance = (1 - table[found] / (2 - table[found])).clamp_(min=0)
        kept = distance <= max_distance
        rows.append((found[kept] // count + begin).int().cpu())
        columns.append((found[kept] % count).int().cpu())
        distances.append(distance[kept].cpu())
    return _symmetric(torch.cat(rows).numpy(), torch.cat(columns).numpy(), torch.cat(distances).numpy(), count)


def _balanced_blocks(start: Tensor, partners: Tensor) -> Iterator[tuple[int, int]]:
    """Yield row blocks whose table and whose number of terms both stay small; at least one row each."""
    count = len(start) - 1
    terms = F.pad(partners.cumsum(0), (1, 0))[start].cpu().numpy()
    rows, begin = max(1, _TABLE_ELEMENTS // count), 0
    while begin < count:
        fitting = int(np.searchsorted(terms, terms[begin] + _GATHERED_ELEMENTS, side="right")) - 1
        end = max(begin + 1, min(fitting, begin + rows, count))
        yield begin, end
        begin = end


def _symmetric(rows: np.ndarray, columns: np.ndarray, distances: np.ndarray, count: int) -> csr_matrix:
    """Return the matrix of pairs above the diagonal, mirrored, with a stored diagonal of 0."""
    upper = csr_matrix((distances, (rows, columns)), shape=(count, count))
    lower = upper.T.tocsr()
    stored = np.diff(lower.indptr) + np.diff(upper.indptr) + 1
    start = np.concatenate([[0], np.cumsum(stored)])
    indices = np.empty(start[-1], dtype=np.int32)
    data = np.zeros(start[-1], dtype=distances.dtype)
    # Row i is: its partners before i, itself, its partners after i; so the columns ascend.
    diagonal = start[:-1] + np.diff(lower.indptr)
    indices[diagonal] = np.arange(count)
    for part, first in ((lower, start[:-1]), (upper, diagonal + 1)):
        target = np.arange(part.nnz) + np.repeat(first - part.indptr[:-1], np.diff(part.indptr))
        indices[target], data[target] = part.indices, part.data
    return csr_matrix((data, indices, start), shape=(count, count))
