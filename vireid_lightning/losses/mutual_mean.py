"""Mutual mean learning of MPANet: each modality's classifier against the other's running mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.precision import in_float32
from vireid_lightning.types import VISIBLE


class ModalityClassifiers(nn.Module):
    """A bias-free identity classifier for each modality, and their running means (Wu et al., CVPR 2021).

    The means are buffers, so that they are part of the checkpoint. They start as copies of the classifiers' weights and
    follow them as W' <- (1 - a) W' + a W.

    Args:
        in_features: Length D of the embeddings.
        num_classes: Number of training identities C.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.visible = nn.Linear(in_features, num_classes, bias=False)
        self.infrared = nn.Linear(in_features, num_classes, bias=False)
        self.visible_mean: Tensor
        self.infrared_mean: Tensor
        self.register_buffer("visible_mean", self.visible.weight.detach().clone())
        self.register_buffer("infrared_mean", self.infrared.weight.detach().clone())

    @torch.no_grad()
    def update_means(self, rate: float) -> None:
        """Move the means towards the weights by the share ``rate`` (a above); once a training step, before use."""
        self.visible_mean.lerp_(self.visible.weight, rate)
        self.infrared_mean.lerp_(self.infrared.weight, rate)

    def forward(self, embeddings: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """Classify each image by its own modality's classifier and by the mean of the other's.

        Args:
            embeddings: (N, D), behind the neck.
            modality: (N,) int64, 0 visible, 1 infrared, in any order.

        Returns:
            Two tensors of logits (N, C): W z with gradient, and W' z of the other modality without any, neither into W'
            nor into z.
        """
        visible = (modality == VISIBLE)[:, None]
        own = torch.where(visible, self.visible(embeddings), self.infrared(embeddings))
        with torch.no_grad():
            by_visible = F.linear(embeddings, self.visible_mean)
            by_infrared = F.linear(embeddings, self.infrared_mean)
            other = torch.where(visible, by_infrared, by_visible)
        return own, other


def mean_rate(epoch: int, momentum: float = 0.2) -> float:
    """Return the share a = momentum * min(100 / (epoch + 1), 1) by which the means move, epochs counted from 1."""
    return momentum * min(100 / (epoch + 1), 1.0)


@in_float32
def mutual_mean_loss(target_logits: Tensor, prediction_logits: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(prediction)), summed over classes and averaged over images.

    As in the authors' code the gradient flows through the *target* alone: what a modality's classifier says of its own
    images is drawn to what the other modality's mean classifier says of them.

    Args:
        target_logits: (N, C), W z of each image's own modality.
        prediction_logits: (N, C), W' z of the other modality; taken as a constant.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    target = F.log_softmax(target_logits, dim=1)
    prediction = F.log_softmax(prediction_logits.detach(), dim=1)
    return (target.exp() * (target - prediction)).sum(dim=1).mean()
