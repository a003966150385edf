"""The triplet loss over each anchor's hardest positive and negative."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def batch_hard_triplet_loss(embeddings: Tensor, identity: Tensor, margin: float | None = 0.3) -> Tensor:
    """Return the mean over anchors of max(0, margin + d_ap - d_an) (Hermans et al., 2017).

    Without a margin it is the soft-margin form of the same paper, log(1 + exp(d_ap - d_an)).

    d_ap is the largest distance to an image of the anchor's identity, d_an the smallest to one of another, both over
    the whole batch, whatever the modalities. An anchor alone in its identity has d_ap = 0; one without negatives
    (a batch of a single identity) counts as 0. Between equal vectors the gradient is 0.

    Args:
        embeddings: (N, D), not normalised.
        identity: (N,) int64, in any order.
        margin: How much nearer than the negative the positive must be; None: the soft margin.

    Returns:
        Scalar, float32 (float64 for float64 embeddings).
    """
    distances = euclidean_distances(embeddings, embeddings)
    same = identity[:, None] == identity[None, :]
    hardest_positive = distances.masked_fill(~same, -float("inf")).amax(dim=1)
    hardest_negative = distances.masked_fill(same, float("inf")).amin(dim=1)
    excess = hardest_positive - hardest_negative
    return (F.softplus(excess) if margin is None else F.relu(margin + excess)).mean()
