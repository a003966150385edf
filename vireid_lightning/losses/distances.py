"""The Euclidean distance that the metric losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def euclidean_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the (N, M) Euclidean distances between the rows of (N, D) and of (M, D).

    They are computed from differences: a matrix product would lose small distances to cancellation. Between equal rows
    the distance is exactly 0, and so is its gradient.
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
