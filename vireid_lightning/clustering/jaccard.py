"""k-reciprocal Jaccard distance (Zhong et al., CVPR 2017) as a sparse graph, blocked, on the device of the features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.k_reciprocal import SparseRows, average_rows, concatenated_ranges, expanded_weights
from vireid_lightning.metrics.parallel import block_threads

# Elements of one block's table of rows against all images: 2**22 float32 values are 16 MiB.
_TABLE_ELEMENTS = 2**22
# Terms that are gathered at a time; each costs some 30 bytes while it lives.
_GATHERED_ELEMENTS = 2**22
# Memory for the blocks of the neighbourhoods.
_BLOCK_BYTES = 2**27


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

    def weigh(part: slice, row: Tensor, column: Tensor) -> Tensor:
        return torch.exp(2 * _cosines(features, row + part.start, column) - 2)

    with block_threads():
        weights = expanded_weights(nearest[:, :k1].contiguous(), half, weigh, _BLOCK_BYTES)
        if k2 > 1:
            weights = average_rows(weights, nearest[:, :k2].contiguous(), _BLOCK_BYTES)
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


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of row blocks whose table against all columns stays small."""
    rows = max(1, _TABLE_ELEMENTS // count)
    for begin in range(0, count, rows):
        yield begin, min(begin + rows, count)


def _cosines(features: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of pairs of rows."""
    pairs = max(1, _GATHERED_ELEMENTS // features.shape[1])
    parts = zip(left.split(pairs), right.split(pairs))
    return torch.cat([torch.einsum("nd,nd->n", features[a], features[b]) for a, b in parts])


def _overlaps(weights: SparseRows, max_distance: float) -> csr_matrix:
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
        owner, position = concatenated_ranges(place[entries] + 1, partners[entries])
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
