"""Cluster memory: one prototype a cluster, which follows the features sample by sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError


@torch.no_grad()
def update_memory(prototypes: Tensor, features: Tensor, labels: Tensor, *, momentum: float = 0.2) -> None:
    """For every sample in turn: prototype_y <- momentum * prototype_y + (1 - momentum) * feature, re-normalised.

    Changes ``prototypes`` in place. The re-normalisation after each sample makes the order within one cluster count,
    and keeps the samples of a cluster from being summed up at once; clusters do not touch each other. So the i-th
    samples of all clusters are taken together, i = 1, 2, ...: one step for each image that the most frequent cluster
    has in the batch, with the values of the loop over samples.

    Args:
        prototypes: (C, D) L2-normalised.
        features: (B, D); L2-normalised here.
        labels: (B,) int64 of 0 to C - 1.
        momentum: Share of the old prototype, 0 to 1.

    Raises:
        VIReIDError: If a label names no prototype, or the momentum is out of range.
    """
    if not 0 <= momentum <= 1:
        raise VIReIDError(f"The memory's momentum is {momentum}; give the old prototype's share, 0 to 1.")
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
