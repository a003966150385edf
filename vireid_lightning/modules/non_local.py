"""Non-local blocks, and where AGW puts them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class NonLocal(nn.Module):
    """Residual attention of every position on every other, without a softmax (Wang et al., CVPR 2018, eq. 6).

    y = x + BN(W(theta phi^T g / positions)), with theta, phi, g and W 1x1 convolutions with biases. The normalisation's
    scale and shift start at 0, so that a fresh block changes nothing. Without a softmax the products can be taken in
    the order theta (phi^T g), which never holds a (positions, positions) matrix.

    Args:
        channels: Channels of the map.
        inner: Channels of theta, phi and g; 1 in AGW's released code.
    """

    def __init__(self, channels: int, inner: int = 1) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.project = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape of ``x``, (B, C, H, W)."""
        theta, phi, g = (branch(x).flatten(2) for branch in (self.theta, self.phi, self.g))
        # Divided before the sum over positions, which could leave float16's range.
        gathered = torch.bmm(g, phi.transpose(1, 2) / x[0, 0].numel())
        attended = torch.bmm(gathered, theta).unflatten(2, x.shape[2:])
        return x + self.norm(self.project(attended))


def insert_non_local(stage: nn.Sequential, channels: int, count: int, inner: int = 1) -> list[NonLocal]:
    """Put a non-local block behind each of the last ``count`` blocks of a stage, in place.

    The blocks are the children of the innermost sequence at the stage's end; where there are fewer than ``count``,
    each is followed by one, and a stage whose end is no sequence is followed as a whole. What was there keeps its
    names in the state dict.

    Args:
        stage: One part of a :class:`~vireid_lightning.modules.Backbone`.
        channels: Channels of the stage's map.
        count: How many.
        inner: Channels within a non-local block.

    Returns:
        The inserted blocks, first to last.
    """
    blocks = stage
    while len(blocks) and isinstance(blocks[-1], nn.Sequential) and len(blocks[-1]):
        blocks = blocks[-1]
    children: OrderedDict[str, nn.Module] = OrderedDict()
    inserted = []
    for number, (name, block) in enumerate(blocks.named_children()):
        children[name] = block
        if number >= len(blocks) - count:
            inserted.append(NonLocal(channels, inner).to(memory_format=torch.channels_last))
            children[f"{name}_non_local"] = inserted[-1]
    blocks._modules.clear()
    for name, child in children.items():
        blocks.add_module(name, child)
    return inserted
