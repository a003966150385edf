"""Weighted regularised triplet loss of AGW."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def weighted_regularized_triplet_loss(
    embeddings: Tensor, identity: Tensor, *, form: Literal["release", "softmax"] = "release"
) -> Tensor:
    """Weighted regularised triplet loss (Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, eq. 8-9).

    For each anchor, ``softplus(d_p - d_n)`` where d_p is a weighted mean of the distances to all images of its
    identity, the anchor itself included at distance 0, and d_n one of the distances to all others; the mean over the
    anchors. The farther a positive and the nearer a negative, the more it weighs; gradients flow through the weights.

    The two forms differ in the weights. ``softmax`` is what the paper prints: a softmax of the distances over the
    positives, of their negation over the negatives. ``release`` is what the published numbers come from:
    exp(d - m) / (sum exp(d - m) + 1e-6) with m the largest distance for positives and 0 for negatives, so that the
    weights of the negatives, and d_n with them, vanish beyond distances of about 14. Both are finite at any scale.

    Args:
        embeddings: (N, D), not normalised. Computed in float32 at least, also under autocast.
        identity: (N,) integers.
        form: Which weights.

    Returns:
        A scalar, float32 (float64 for float64 embeddings). Anchors without a single negative are left out; where none
        is left, 0 with gradients of 0.

    Example:
        >>> weighted_regularized_triplet_loss(torch.tensor([[0.0], [3.0]]), torch.tensor([0, 1]), form="softmax")
        tensor(0.0486)
    """
    distances = euclidean_distances(embeddings, embeddings)
    positive = identity[:, None] == identity[None, :]
    anchors = ~positive.all(dim=1)
    if not anchors.any():
        return embeddings.sum() * 0.0
    distances, positive = distances[anchors], positive[anchors]
    weights = _softmax_weights if form == "softmax" else _release_weights
    positive_distance = (weights(distances, positive) * distances).sum(dim=1)
    negative_distance = (weights(-distances, ~positive) * distances).sum(dim=1)
    return F.softplus(positive_distance - negative_distance).mean()


def _softmax_weights(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -torch.inf).softmax(dim=1)


def _release_weights(values: Tensor, mask: Tensor) -> Tensor:
    # The maximum of values * mask runs over the whole row, masked zeros included: 0 for negatives, whose values are
    # negative. Masked before the exponential, because exp of what lies outside the mask may overflow.
    peak = (values * mask).amax(dim=1, keepdim=True)
    weights = (values - peak).masked_fill(~mask, -torch.inf).exp()
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-6)
