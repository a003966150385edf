"""A classifier for each modality and their running means, for mutual mean learning (Wu et al., CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.kinds import check_number, check_sizes
from vireid_lightning.types import VISIBLE


class ModalityClassifiers(nn.Module):
    """A bias-free identity classifier for each modality, and their running means (Wu et al., CVPR 2021).

    The means are buffers, so that they are part of the checkpoint. They start as copies of the classifiers' weights W
    and follow them as W' <- (1 - a) W' + a W.

    Args:
        in_features: Length D of the embeddings.
        num_classes: Number of training identities C.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_sizes(in_features=in_features, num_classes=num_classes)
        self.visible = nn.Linear(in_features, num_classes, bias=False)
        self.infrared = nn.Linear(in_features, num_classes, bias=False)
        self.visible_mean: Tensor
        self.infrared_mean: Tensor
        self.register_buffer("visible_mean", self.visible.weight.detach().clone())
        self.register_buffer("infrared_mean", self.infrared.weight.detach().clone())

    @torch.no_grad()
    def update_means(self, rate: float) -> None:
        """Move the means towards the weights; call it once a training step, before the classifiers are used.

        Args:
            rate: Share a of the way, 0 to 1; the paper's is :func:`mean_rate`.
        """
        check_number("rate", rate, 0, 1)
        self.visible_mean.lerp_(self.visible.weight, rate)
        self.infrared_mean.lerp_(self.infrared.weight, rate)

    def forward(self, embeddings: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """Classify each image by its own modality's classifier and by the mean of the other's.

        Args:
            embeddings: z, (N, D), behind the neck.
            modality: (N,) int64, 0 visible, 1 infrared, in any order.

        Returns:
            Two tensors of logits (N, C): W z of the own modality, with gradient, and W' z of the other, which gives no
            gradient to z.
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
    check_number("epoch", epoch, 1, whole=True)
    check_number("momentum", momentum, 0, 1)
    return momentum * min(100 / (epoch + 1), 1.0)
