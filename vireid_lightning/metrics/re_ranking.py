"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) without an N x N matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.distances import distance_block, exact_float32, gram_matrix
from vireid_lightning.metrics.k_reciprocal import SparseRows, average_rows, expanded_weights, overlap, row_blocks, taken
from vireid_lightning.metrics.parallel import block_threads, map_parts, thread_count


@dataclass(frozen=True)
class ReRanking:
    """The settings of k-reciprocal re-ranking; see :func:`re_rank`.

    Attributes:
        k1: Neighbours that are considered.
        k2: Images that neighbourhoods are averaged over.
        lambda_value: Weight of the original distance, between 0 and 1.

    Raises:
        VIReIDError: If a value is out of its range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.lambda_value <= 1:
            raise VIReIDError(
                f"Re-ranking got k1={self.k1}, k2={self.k2}, lambda_value={self.lambda_value}; k1 and k2 are at least "
                "1, lambda_value is between 0 and 1."
            )


def re_rank(
    query: Tensor,
    gallery: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    block_mb: int = 256,
) -> Tensor:
    """Return distances re-ranked by k-reciprocal neighbours.

    Over the N = Q + G images together, d(i, j) is the squared Euclidean distance divided by the largest of row i.
    R(i, n) are those of i and its n nearest whose own n nearest contain i. R(i, k1) is expanded by each
    S_j = R(j, round(k1 / 2)), j in R(i, k1), of which more than two thirds lie in R(i, k1) (eq. 5). V_i is
    exp(-d(i, .)) over the expanded set, divided by its sum, then averaged over i and its k2 - 1 nearest (eqs. 7 and
    11). With s = sum(min(V_i, V_j)), the result is (eqs. 10 and 12)

        (1 - lambda) (1 - s / (2 - s)) + lambda d(i, j).

    Sets are sparse. Distances are made in blocks of rows: from one product where it fits into three quarters of
    ``block_mb``, else once for the neighbours and once for the weights.

    Args:
        query: (Q, D), L2-normalised for the cosine distance.
        gallery: (G, D), on the same device.
        k1: Neighbours that are considered; all others where there are fewer.
        k2: Images that V is averaged over; 1 leaves it as it is.
        lambda_value: Weight of the original distance.
        block_mb: MiB that the blocks may take, beside the result, the sparse sets (about k1 k2 numbers an image) and,
            where the distances do not fit, one copy of the embeddings.

    Returns:
        (Q, G) float32.

    Raises:
        VIReIDError: For shapes that do not fit, values that are not finite, or arguments out of range.

    Example:
        >>> images = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
        >>> re_rank(images[:10], images[10:], k1=5, k2=2).shape
        torch.Size([10, 20])
    """
    ReRanking(k1, k2, lambda_value)  # checks them
    _check(query, gallery)
    with exact_float32(query.device), block_threads():
        queries, count, block_bytes = len(query), len(query) + len(gallery), block_mb * 2**20
        distances = _Distances(query.float(), gallery.float(), block_bytes)
        nearest, largest = distances.nearest(max(k1 + 1, k2))
        half = round(k1 / 2) + 1  # Python rounds half to even, as the authors' code does

        def weigh(part: slice, row: Tensor, column: Tensor) -> Tensor:
            return torch.exp(-distances.pairs(part, row, column) / taken(largest[part], row))

        weights = expanded_weights(nearest[:, : k1 + 1].contiguous(), half, weigh, distances.spare)
        if k2 > 1:
            weights = average_rows(weights, nearest[:, :k2].contiguous(), distances.spare)
        shared = overlap(_part(weights, 0, queries), _part(weights, queries, count), count, distances.spare)

        def mix(part: slice) -> None:
            original = distances.rows(part, slice(queries, None)).div_(largest[part, None])
            block = shared[part]
            block.div_(2 - block).neg_().add_(1).mul_(1 - lambda_value).add_(original, alpha=lambda_value)

        map_parts(mix, row_blocks(queries, 8 * len(gallery), distances.spare // thread_count()), query.device)
        return shared


class _Distances:
    """Squared Euclidean distances of all images, in blocks of rows; kept where most of the memory holds them."""

    def __init__(self, query: Tensor, gallery: Tensor, block_bytes: int) -> None:
        self.count, self.device = len(query) + len(gallery), query.device
        size = 4 * self.count**2
        #: What is left for blocks.
        self.spare = block_bytes // 2
        self.kept: Tensor | None = None
        if 4 * size <= 3 * block_bytes:
            self.kept, self.spare = gram_matrix(query, gallery), block_bytes - size
            self.square = self.kept.diagonal().clone()
        else:
            self.images = torch.cat([query, gallery])
            self.square = self.images.square().sum(dim=1)

    def ranking(self, part: slice, columns: slice = slice(None)) -> Tensor:
        """Return (rows, columns) distances less the row's own square, which changes no order within a row."""
        if self.kept is not None:
            return torch.add(self.square[columns], self.kept[part, columns], alpha=-2)
        return distance_block(self.images[part], self.images[columns], "euclidean", self.square[columns])

    def rows(self, part: slice, columns: slice = slice(None)) -> Tensor:
        """Return (rows, columns) distances, of which none is negative; that of an image to itself is about 0."""
        return self.ranking(part, columns).add_(self.square[part, None]).clamp_(min=0)

    def pairs(self, part: slice, row: Tensor, column: Tensor) -> Tensor:
        """Return some distances of a block of rows, given by their row within it and their column."""
        if self.kept is None:
            return self.rows(part)[row, column]
        product = taken(self.kept.view(-1), (row + part.start) * self.count + column)
        return (taken(self.square, column) - 2 * product + taken(self.square[part], row)).clamp_(min=0)

    def nearest(self, number: int) -> tuple[Tensor, Tensor]:
        """Return (N, number) each image's nearest, itself first, and (N,) the largest distance of each."""
        count, device = self.count, self.device
        nearest = torch.empty(count, min(number, count), dtype=torch.int64, device=device)
        largest = torch.empty(count, device=device)

        def fill(part: slice) -> None:
            block = self.ranking(part)
            largest[part] = block.amax(dim=1).add_(self.square[part])
            block.diagonal(part.start).fill_(-torch.inf)  # itself first, also where copies of it exist
            nearest[part] = block.topk(nearest.shape[1], dim=1, largest=False).indices

        map_parts(fill, row_blocks(count, 12 * count, self.spare // thread_count()), device)
        return nearest, largest.clamp_(min=torch.finfo(torch.float32).tiny)  # where all are one point, each is 0


def _part(rows: SparseRows, begin: int, end: int) -> SparseRows:
    entries = slice(int(rows.start[begin]), int(rows.start[end]))
    return SparseRows(rows.start[begin : end + 1] - rows.start[begin], rows.column[entries], rows.value[entries])


def _check(query: Tensor, gallery: Tensor) -> None:
    for name, images in (("query", query), ("gallery", gallery)):
        if images.ndim != 2 or 0 in images.shape or not images.is_floating_point():
            raise VIReIDError(
                f"Re-ranking needs {name} embeddings (images, values) of a floating type, not {tuple(images.shape)} of "
                f"{images.dtype}."
            )
        if not bool(torch.isfinite(images.float().sum())) and not bool(torch.isfinite(images).all()):
            row = int((~torch.isfinite(images).all(dim=1)).nonzero()[0])
            raise VIReIDError(f"Re-ranking got {name} embeddings with NaN or infinity, the first is row {row}.")
    if query.shape[1] != gallery.shape[1]:
        raise VIReIDError(f"Re-ranking got queries of {query.shape[1]} values and a gallery of {gallery.shape[1]}.")
