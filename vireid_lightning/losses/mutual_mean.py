"""The mutual mean loss (Wu et al., CVPR 2021): each modality's classifier against the other's running mean."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.precision import in_float32


@in_float32
def mutual_mean_loss(target_logits: Tensor, prediction_logits: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(prediction)), summed over classes and averaged over images.

    What a modality's classifier says of its own images is pulled to what the mean classifier of the other modality says
    of them (Wu et al., CVPR 2021). As in the authors' code, the gradient flows through the *target* alone.

    Args:
        target_logits: (N, C), W z by the classifier of each image's own modality.
        prediction_logits: (N, C), W' z by the mean classifier of the other modality; it gets no gradient.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 logits).
    """
    target = F.log_softmax(target_logits, dim=1)
    prediction = F.log_softmax(prediction_logits.detach(), dim=1)
    return (target.exp() * (target - prediction)).sum(dim=1).mean()
