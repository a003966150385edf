"""Cluster memory: a prototype for each cluster, which follows the embeddings of the batches."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.types import read_values


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
    values = read_values(labels)
    if values and not 0 <= min(values) <= max(values) < len(prototypes):
        raise VIReIDError(
            f"The memory has {len(prototypes)} prototypes, but labels run from {min(values)} to {max(values)}; leave "
            "outliers out of the batch."
        )
    features = F.normalize(features.to(prototypes.dtype), dim=1)
    turns: list[list[int]] = []  # the rows of the clusters' first samples, of their second ones, and so on
    seen: Counter[int] = Counter()
    for row, value in enumerate(values):
        if seen[value] == len(turns):
            turns.append([])
        turns[seen[value]].append(row)
        seen[value] += 1
    for turn in turns:
        rows = torch.tensor(turn).to(labels.device, non_blocking=True)
        clusters = labels[rows]
        moved = momentum * prototypes[clusters] + (1 - momentum) * features[rows]
        prototypes[clusters] = F.normalize(moved, dim=1)
