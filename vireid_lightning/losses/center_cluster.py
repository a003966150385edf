"""The center cluster loss of MPANet, also used by DCLNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def center_cluster_loss(embeddings: Tensor, identity: Tensor, margin: float = 0.7) -> Tensor:
    """Draw images to their identity's centre and push centres apart (Wu et al., CVPR 2021).

    With c_y the mean embedding of identity y over the batch's images of both modalities: the mean over images of
    ||f_i - c_{y_i}||, plus the mean over ordered pairs of different identities of max(0, margin - ||c_a - c_b||).
    Gradients flow through the centres. With one identity in the batch the second term is 0; between equal vectors the
    gradient is 0.

    Args:
        embeddings: (N, D), not normalised, in front of the neck.
        identity: (N,) int64, in any order.
        margin: Distance beyond which two centres no longer repel each other.

    Returns:
        Scalar, float32 (float64 for float64 embeddings).
    """
    _, member, counts = torch.unique(identity, return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(counts), embeddings.shape[1]).index_add(0, member, embeddings)
    centres = sums / counts[:, None]
    to_centre = torch.linalg.vector_norm(embeddings - centres.index_select(0, member), dim=1).mean()
    too_close = F.relu(margin - euclidean_distances(centres, centres))
    pairs = len(counts) * (len(counts) - 1)
    # The diagonal holds each centre's distance to itself, which is no pair.
    return to_centre + (too_close - torch.diag(too_close.diagonal())).sum() / max(pairs, 1)
