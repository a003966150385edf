"""Modality alleviation: a mixture of a map and its instance norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vireid_lightning.kinds import check_sizes
from vireid_lightning.precision import widen


class ModalityAlleviation(nn.Module):
    """Mixes a map with its instance norm, channel by channel: the MAM of Wu et al., CVPR 2021.

    The output is m * x + (1 - m) * IN(x), with m = sigmoid(W2 relu(W1 gap(x))): instance norm removes what is
    particular to a modality's look, and m keeps the channels that tell identities apart. IN has no affine parameters
    and no running statistics.

    Args:
        channels: Number of channels C of the map.
        reduction: Factor by which W1 reduces the channels; 16 in the paper.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        check_sizes(channels=channels, reduction=reduction)
        hidden = max(channels // reduction, 1)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixture in the shape and dtype of the map ``x`` (B, C, H, W)."""
        # An exported network must not hold the function, which exists in this process alone.
        variance, mean = _Moments.apply(x) if torch.is_grad_enabled() and x.requires_grad else _find_moments(x)
        kept = widen(self.attention(mean))
        # m x + (1 - m)(x - mean) / std is linear in x: one pass over the map, and its instance norm is never stored.
        normalised = (1 - kept) * torch.rsqrt(variance + 1e-5)
        return torch.addcmul(-normalised * mean, widen(x), kept + normalised).to(x.dtype)


def _find_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return variance and mean of each image and channel, (B, C, 1, 1), at least float32."""
    wide = widen(x)
    if x.device.type == "cpu":  # in two passes, which take a fifth of the time of one by var_mean
        mean = wide.mean((2, 3), keepdim=True)
        return (wide - mean).square_().mean((2, 3), keepdim=True), mean
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    return variance, mean


class _Moments(torch.autograd.Function):
    """The moments with a gradient in one pass over the map; PyTorch takes several.

    ``python tests/benchmarks/instance_moments.py`` compares both.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = _find_moments(x)
        ctx.save_for_backward(x, mean)
        return variance, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, variance_grad: Tensor, mean_grad: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.shape[2] * x.shape[3]
        # The derivative is slope (x - mean) + mean_grad / count.
        slope = variance_grad * (2 / count)
        return torch.addcmul(mean_grad / count - slope * mean, widen(x), slope).to(x.dtype)
