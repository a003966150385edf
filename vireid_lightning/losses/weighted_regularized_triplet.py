"""The weighted regularised triplet loss: all positives and negatives of an anchor count, the hard ones most."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def weighted_regularized_triplet_loss(
    embeddings: Tensor, identity: Tensor, *, form: Literal["release", "softmax"] = "release"
) -> Tensor:
    """Return the mean over anchors of ``softplus(d_p - d_n)`` (Ye et al., TPAMI 2021, eq. 8-9).

    d_p is a weighted mean of the Euclidean distances from the anchor to all images of its identity, itself included at
    distance 0; d_n is a weighted mean of its distances to all images of other identities. The farther a positive and
    the nearer a negative, the more it weighs. Gradients flow through the weights.

    The two forms differ in the weights. ``softmax`` is what the paper prints: a softmax of the distances over the
    positives, and of the negated distances over the negatives. ``release`` is what the published numbers come from:
    exp(d - m) / (sum exp(d - m) + 1e-6) with m the largest distance for positives and 0 for negatives, so that the
    weights of the negatives, and d_n with them, vanish beyond distances of about 14. Both are finite at any scale.

    Args:
        embeddings: (N, D), not normalised. Computed in float32 at least, also under autocast.
        identity: (N,) int64, in any order.
        form: Which weights: ``release`` for those of the published numbers, ``softmax`` for those of the paper.

    Returns:
        A scalar, float32 (float64 for float64 embeddings). Anchors without a negative are left out; 0, with gradients
        of 0, where no anchor is left.

    Raises:
        VIReIDError: If there is no such form.

    Example:
        >>> weighted_regularized_triplet_loss(torch.tensor([[0.0], [3.0]]), torch.tensor([0, 1]), form="softmax")
        tensor(0.0486)
    """
    if form not in ("release", "softmax"):
        raise VIReIDError(f"form is {form!r}; give release or softmax.")
    distances = euclidean_distances(embeddings, embeddings)
    positive = identity[:, None] == identity[None, :]
    # An anchor without a negative is in a batch of one identity, where no anchor has one. All its images then count as
    # negatives, which keeps the weights finite, and the loss as 0: no value has to reach Python.
    without = positive.all(dim=1, keepdim=True)
    weights = _softmax_weights if form == "softmax" else _release_weights
    positive_distance = (weights(distances, positive) * distances).sum(dim=1)
    negative_distance = (weights(-distances, ~positive | without) * distances).sum(dim=1)
    return F.softplus(positive_distance - negative_distance).masked_fill(without.squeeze(1), 0.0).mean()


def _softmax_weights(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -torch.inf).softmax(dim=1)


def _release_weights(values: Tensor, mask: Tensor) -> Tensor:
    # The maximum of values * mask runs over the whole row, masked zeros included: 0 for negatives, whose values are
    # negative. Masked before the exponential, because exp of what lies outside the mask may overflow.
    peak = (values * mask).amax(dim=1, keepdim=True)
    weights = (values - peak).masked_fill(~mask, -torch.inf).exp()
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-6)
