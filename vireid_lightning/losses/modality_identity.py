"""Identity classification by a classifier for each modality (Wu et al., CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.precision import in_float32
from vireid_lightning.types import INFRARED, VISIBLE


@in_float32
def modality_identity_loss(logits: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Return the mean cross-entropy of the visible images plus that of the infrared images.

    A modality without images in the batch adds 0.

    Args:
        logits: (N, C), from the classifier of each image's own modality.
        identity: (N,) int64 class indices.
        modality: (N,) int64, 0 visible, 1 infrared, in any order.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 logits).
    """
    entropy = F.cross_entropy(logits, identity, reduction="none")
    masks = torch.stack([modality == VISIBLE, modality == INFRARED])
    return ((masks * entropy).sum(dim=1) / masks.sum(dim=1).clamp(min=1)).sum()
