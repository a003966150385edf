"""The center cluster loss (Wu et al., CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.arguments import check_setting
from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def center_cluster_loss(embeddings: Tensor, identity: Tensor, margin: float = 0.7) -> Tensor:
    """Pull images to the centre of their identity and push centres apart (Wu et al., CVPR 2021).

    The centre c_y is the mean embedding of identity y over the images of both modalities in the batch. The loss is the
    mean over images of ||f_i - c_{y_i}||, plus the mean over ordered pairs of different identities of
    max(0, margin - ||c_a - c_b||). Gradients flow through the centres. With one identity in the batch the second term
    is 0; the gradient of a distance of 0 is 0.

    Args:
        embeddings: (N, D), not normalised, in front of the neck. Any floating type; computed in float32 at least.
        identity: (N,) int64, in any order.
        margin: Euclidean distance beyond which two centres no longer repel each other.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 embeddings).

    Raises:
        VIReIDError: If the margin is no number of 0 or more.

    Example:
        >>> center_cluster_loss(torch.tensor([[0.0], [2.0], [1.5]]), torch.tensor([0, 0, 1]), margin=0.75)
        tensor(0.9167)
    """
    check_setting("margin", margin)
    count = len(identity)
    row = torch.arange(count, device=identity.device)
    # The centre of an identity lies in the row of its first image, other rows are empty: unlike the number of
    # identities, that of rows is known without waiting for the device.
    member = torch.where(identity[:, None] == identity, row, count).amin(dim=1)
    sums = torch.zeros_like(embeddings).index_add(0, member, embeddings)
    counts = embeddings.new_zeros(count).index_add(0, member, embeddings.new_ones(count))
    centres = sums / counts.clamp(min=1)[:, None]
    to_centre: Tensor = torch.linalg.vector_norm(embeddings - centres.index_select(0, member), dim=1).mean()
    first = member == row
    pairs = first[:, None] & first & (row[:, None] != row)
    too_close = F.relu(margin - euclidean_distances(centres, centres)).masked_fill(~pairs, 0)
    return to_centre + too_close.sum() / pairs.sum().clamp(min=1)
