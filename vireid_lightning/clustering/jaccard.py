"""The k-reciprocal Jaccard distance (Zhong et al., CVPR 2017) as a sparse matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from vireid_lightning.kinds import check_number
from vireid_lightning.metrics.k_reciprocal import (
    InnerProducts,
    check_embeddings,
    find_nearest,
    map_overlaps,
    weigh_neighbourhoods,
)
from vireid_lightning.metrics.parallel import block_threads, find_true, gather_rows

# Memory that the blocks may take.
_BLOCK_BYTES = 2**27


@torch.no_grad()
def jaccard_distance(features: Tensor, k1: int = 30, k2: int = 6, *, max_distance: float = 1.0) -> csr_matrix:
    """Return the k-reciprocal Jaccard distance of all pairs whose neighbourhoods overlap, without an N x N matrix.

    R(i, n) are those of i's n nearest (itself included) whose own n nearest contain i. R(i) = R(i, k1) is expanded by
    each S_j = R(j, round(k1 / 2) + 1), j in R(i), of which more than two thirds lie in R(i). V_i is the softmax of
    -(2 - 2 cos) over the expanded set, averaged over i's k2 nearest (itself included). With s = sum(min(V_i, V_j)),

        d(i, j) = 1 - s / (2 - s).

    A row of V has tens of entries, so most pairs have s = 0 and d = 1; they are not stored. The time is that of one
    matrix product in blocks and a few passes over V; the memory beyond the result is some tens of bytes for each entry
    of V, and the blocks. Devices agree up to rounding; on the CPU the values are the same in every run.

    Args:
        features: (N, D), any floating type; L2-normalised here. Computed on their device in float32 (float64 for
            float64 features).
        k1: Neighbours that are considered, the image included, at least 1; all N where there are fewer.
        k2: Neighbours that V is averaged over, the image included, at least 1; 1 leaves V as it is.
        max_distance: Largest distance that is stored, above 0 and at most 1. DBSCAN needs no more than its ``eps``.

    Returns:
        (N, N) symmetric SciPy CSR matrix with sorted indices. The diagonal is stored, as 0. A pair that is not stored
        has a distance of 1, or one above ``max_distance``.

    Raises:
        VIReIDError: If the features are not a matrix of finite floats with at least one row, or an argument is out of
            range.

    Example:
        >>> graph = jaccard_distance(torch.eye(4).repeat_interleave(3, dim=0), k1=3, k2=1)
        >>> float(graph[0, 2]), (0, 3) in zip(*graph.nonzero()), graph.nnz
        (0.0, False, 36)
    """
    check_embeddings(features, "features")
    check_number("k1", k1, 1, whole=True)
    check_number("k2", k2, 1, whole=True)
    check_number("max_distance", max_distance, 0, 1, above=True)
    count = len(features)
    products = InnerProducts(F.normalize(features if features.dtype == torch.float64 else features.float(), dim=1))

    def weigh(row: Tensor, column: Tensor) -> Tensor:
        return torch.exp(2 * products.pairs(row, column) - 2)

    def list_pairs(rows: slice, columns: slice, shared: Tensor) -> tuple[NDArray[Any], ...]:
        shared = shared.view(-1)
        place = find_true(shared != 0)
        shared = gather_rows(shared, place)
        distance = (1 - shared / (2 - shared)).clamp_(min=0)
        near = find_true(distance <= max_distance)
        place, distance = gather_rows(place, near), gather_rows(distance, near)
        width = columns.stop - columns.start
        row, column = (place // width + rows.start).int(), (place % width + columns.start).int()
        return row.cpu().numpy(), column.cpu().numpy(), distance.cpu().numpy()

    with block_threads():
        nearest = find_nearest(count, max(k1, k2), products.block, features.device, _BLOCK_BYTES)
        half = min(round(k1 / 2) + 1, k1)  # Python rounds half to even, as the definition does
        weights = weigh_neighbourhoods(nearest, k1, k2, half, weigh, _BLOCK_BYTES)
        blocks = map_overlaps(weights, list_pairs, _BLOCK_BYTES)
    row, column, distance = (np.concatenate(part) for part in zip(*blocks))
    image = np.arange(count, dtype=row.dtype)
    # In this order the columns of each row ascend: the pairs with those before it, itself, the pairs with those after.
    values = np.concatenate([distance, np.zeros(count, distance.dtype), distance])
    places = np.concatenate([column, image, row]), np.concatenate([row, image, column])
    return csr_matrix((values, places), shape=(count, count))
