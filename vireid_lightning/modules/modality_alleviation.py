"""MPANet's modality alleviation module (MAM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid_lightning.precision import widen


class ModalityAlleviation(nn.Module):
    """Mixes a map with its instance norm, channel by channel (Wu et al., CVPR 2021).

    m * x + (1 - m) * IN(x), with m = sigmoid(W2 relu(W1 gap(x))): instance norm takes away what is particular to a
    modality's look, and m keeps the channels that tell identities apart. IN has no affine parameters and no running
    statistics.

    Args:
        channels: Channels C of the map; W1 reduces them to C / ``reduction``.
        reduction: The paper's is 16.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape and dtype of ``x`` (B, C, H, W)."""
        variance, mean = torch.var_mean(widen(x), dim=(2, 3), correction=0, keepdim=True)
        kept = widen(self.attention(mean))
        # m x + (1 - m)(x - mean) / std is linear in x: one pass over the map and no copy of its instance norm.
        normalised = (1 - kept) * torch.rsqrt(variance + 1e-5)
        return (x * (kept + normalised) - normalised * mean).to(x.dtype)
