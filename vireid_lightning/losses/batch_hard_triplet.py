"""The triplet loss over the hardest positive and the hardest negative of each anchor."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.arguments import check_setting
from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def batch_hard_triplet_loss(embeddings: Tensor, identity: Tensor, margin: float | None = 0.3) -> Tensor:
    """Return the mean over anchors of max(0, margin + d_ap - d_an) (Hermans et al., 2017).

    d_ap is the Euclidean distance of the hardest positive: the largest to an image of the anchor's identity. d_an is
    that of the hardest negative: the smallest to an image of another identity. Both are searched in the whole batch,
    whatever the modalities. Without a margin the loss is the soft-margin form of the same paper,
    log(1 + exp(d_ap - d_an)).

    An anchor that is alone in its identity has d_ap = 0; an anchor without negatives (a batch of a single identity)
    counts as 0. The gradient of a distance of 0 is 0.

    Args:
        embeddings: (N, D), not normalised. Any floating type; computed in float32 at least, also under autocast.
        identity: (N,) int64, in any order.
        margin: How much nearer than the negative the positive must be; None for the soft margin.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 embeddings).

    Raises:
        VIReIDError: If the margin is no number of 0 or more.

    Example:
        >>> batch_hard_triplet_loss(torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([0, 0, 1]), margin=0.5)
        tensor(0.3333)
    """
    if margin is not None:
        check_setting("margin", margin)
    distances = euclidean_distances(embeddings, embeddings)
    same = identity[:, None] == identity[None, :]
    hardest_positive = distances.masked_fill(~same, -float("inf")).amax(dim=1)
    hardest_negative = distances.masked_fill(same, float("inf")).amin(dim=1)
    excess = hardest_positive - hardest_negative
    return (F.softplus(excess) if margin is None else F.relu(margin + excess)).mean()
