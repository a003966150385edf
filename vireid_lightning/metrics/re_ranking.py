"""Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.metrics.k_reciprocal import (
    InnerProducts,
    check_embeddings,
    find_nearest,
    map_overlaps,
    weigh_neighbourhoods,
)
from vireid_lightning.metrics.parallel import block_threads, gather_rows
from vireid_lightning.precision import exact_float32


@dataclass(frozen=True)
class ReRanking:
    """The settings of k-reciprocal re-ranking; see :func:`re_rank`.

    Attributes:
        k1: Neighbours that re-ranking considers, at least 1.
        k2: Images that neighbourhoods are averaged over, the image itself included; at least 1.
        lambda_value: Weight of the original distance, 0 to 1; the rest is that of the Jaccard distance.

    Raises:
        VIReIDError: If a value is out of its range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        check_kinds(vars(self), type(self), "re-ranking's ")
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

    Queries and gallery together are N = Q + G images. d(i, j) is their squared Euclidean distance, divided by the
    largest of row i. R(i, n) are those of i and its n nearest whose own n nearest contain i. R(i, k1) is expanded by
    each S_j = R(j, round(k1 / 2)), j in R(i, k1), of which more than two thirds lie in R(i, k1) (eq. 5). V_i is
    exp(-d(i, .)) over the expanded set, divided by its sum, then averaged over i and its k2 - 1 nearest (eqs. 7 and
    11). With s = sum(min(V_i, V_j)), the result is (eqs. 10 and 12)

        (1 - lambda) (1 - s / (2 - s)) + lambda d(i, j).

    The sets are sparse. The N x N inner products are kept where they fit into three quarters of ``block_mb``; otherwise
    they are made in blocks of rows and only those of neighbours are made again.

    Args:
        query: (Q, D) of any floating type; L2-normalised for the cosine distance. Computed in float32.
        gallery: (G, D), on the same device.
        k1: Neighbours that are considered, at least 1; all other images where there are fewer.
        k2: Images that V is averaged over, the image itself included; 1 leaves V as it is.
        lambda_value: Weight of the original distance, 0 to 1.
        block_mb: Memory in MiB that the blocks may take, beside the result, the sparse sets (about k1 k2 numbers for
            each image) and a copy of the embeddings.

    Returns:
        (Q, G) float32 distances, smaller for nearer images, 0 to 1.

    Raises:
        VIReIDError: If shapes do not fit together, a value is not finite, or an argument is out of range.

    Example:
        >>> images = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
        >>> re_rank(images[:10], images[10:], k1=5, k2=2).shape
        torch.Size([10, 20])
    """
    ReRanking(k1, k2, lambda_value)  # checks them
    check_number("block_mb", block_mb, 1, whole=True)
    check_embeddings(query, "query embeddings")
    check_embeddings(gallery, "gallery embeddings")
    if query.shape[1] != gallery.shape[1]:
        raise VIReIDError(f"Re-ranking got queries of {query.shape[1]} values and a gallery of {gallery.shape[1]}.")
    queries, count, spare = len(query), len(query) + len(gallery), block_mb * 2**20
    size = 4 * count**2
    keep = 4 * size <= 3 * spare
    spare = spare - size if keep else spare // 2
    with exact_float32(query.device), block_threads():
        products = InnerProducts(torch.cat([query.float(), gallery.float()]), keep=keep)
        square = products.square
        largest = torch.empty_like(square)

        def score(part: slice) -> Tensor:
            # -d(i, j) and the row's own square, which changes no order within the row and would cost digits.
            scores = torch.add(-square, products.block(part), alpha=2)
            largest[part] = square[part] - scores.amin(dim=1)
            return scores

        nearest = find_nearest(count, max(k1 + 1, k2), score, query.device, spare)
        largest.clamp_(min=torch.finfo(torch.float32).tiny)  # where all are one point, each is 0

        def weigh(row: Tensor, column: Tensor) -> Tensor:
            distance = gather_rows(square, column) - 2 * products.pairs(row, column) + gather_rows(square, row)
            return torch.exp(-distance.clamp_(min=0) / gather_rows(largest, row))

        half = round(k1 / 2) + 1  # Python rounds half to even, as the authors' code does
        weights = weigh_neighbourhoods(nearest, k1 + 1, k2, half, weigh, spare)
        result = torch.empty(queries, count - queries, device=query.device)

        def mix(rows: slice, columns: slice, shared: Tensor) -> None:
            distance = torch.add(square[columns], products.block(rows, columns), alpha=-2)
            distance.add_(square[rows, None]).clamp_(min=0).div_(largest[rows, None])
            jaccard = shared.div_(2 - shared).neg_().add_(1)
            torch.add(jaccard.mul_(1 - lambda_value), distance, alpha=lambda_value, out=result[rows])

        map_overlaps(weights, mix, spare, queries)
        return result
