"""Cluster memory: a prototype for each cluster, which follows the embeddings of the batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number


@torch.no_grad()
def update_memory(prototypes: Tensor, features: Tensor, labels: Tensor, *, momentum: float = 0.2) -> None:
    """Move the prototype of each sample's cluster towards the sample, one sample after the other.

    For a sample of cluster y, prototype_y <- normalise(momentum * prototype_y + (1 - momentum) * feature), in place.
    Because of the normalisation the order of a cluster's samples matters, and they cannot be added up at once. Clusters
    do not affect each other, so the first samples of all clusters are handled together, then the second ones, and so
    on: as many steps as the most frequent cluster has samples, with the values of a loop over samples.

    Args:
        prototypes: (C, D), L2-normalised; changed in place.
        features: (B, D), L2-normalised here.
        labels: (B,) int64, the clusters of the samples, 0 to C - 1.
        momentum: Share of the old prototype, 0 to 1.

    Raises:
        VIReIDError: If a label names no prototype, or the momentum is out of range.

    Example:
        >>> prototypes = torch.eye(2)
        >>> update_memory(prototypes, torch.tensor([[0.0, 1.0]]), torch.tensor([0]), momentum=0.5)
        >>> prototypes
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    check_number("momentum", momentum, 0, 1)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(prototypes):
        raise VIReIDError(
            f"The memory has {len(prototypes)} prototypes, but labels run from {int(labels.min())} to "
            f"{int(labels.max())}; leave outliers out of the batch."
        )
    features = F.normalize(features.to(prototypes.dtype), dim=1)
    order = torch.argsort(labels, stable=True)
    _, counts = torch.unique_consecutive(labels[order], return_counts=True)
    first = counts.cumsum(0) - counts
    for occurrence in range(int(counts.max()) if len(counts) else 0):
        rows = order[first[counts > occurrence] + occurrence]
        moved = momentum * prototypes[labels[rows]] + (1 - momentum) * features[rows]
        prototypes[labels[rows]] = F.normalize(moved, dim=1)
