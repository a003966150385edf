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
        variance, mean = _Moments.apply(x)
        kept = widen(self.attention(mean))
        # m x + (1 - m)(x - mean) / std is linear in x: one pass over the map, and its instance norm is never stored.
        normalised = (1 - kept) * torch.rsqrt(variance + 1e-5)
        return torch.addcmul(-normalised * mean, widen(x), kept + normalised).to(x.dtype)


class _Moments(torch.autograd.Function):
    """Variance and mean of each image and channel, (B, C, 1, 1), at least float32.

    On the CPU PyTorch's ``var_mean`` takes several times as long, forward and backward, which a training step at the
    paper's size shows (``python tests/benchmarks/instance_moments.py``).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = widen(x)
        mean = wide.mean((2, 3), keepdim=True)
        ctx.save_for_backward(x, mean)
        return (wide - mean).square_().mean((2, 3), keepdim=True), mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, variance_grad: Tensor, mean_grad: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x[0, 0].numel()
        slope = variance_grad * (2 / count)
        # One pass over the map: the derivative is slope (x - mean) + mean_grad / count.
        return torch.addcmul(mean_grad / count - slope * mean, widen(x), slope).to(x.dtype)
