"""Non-local blocks, and their place behind the last blocks of a stage."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vireid_lightning.kinds import check_number, check_sizes


class NonLocal(nn.Module):
    """Residual attention of every position on every other, without a softmax (Wang et al., CVPR 2018, eq. 6).

    y = x + BN(W(theta phi^T g / positions)), where theta, phi, g and W are 1x1 convolutions with biases. The scale and
    shift of the batch normalisation start at 0, so that a fresh block changes nothing. Without a softmax the products
    can be taken in the order theta (phi^T g), which never holds a (positions, positions) matrix.

    Args:
        channels: Number of channels of the map.
        inner: Number of channels of theta, phi and g.
    """

    def __init__(self, channels: int, inner: int = 1) -> None:
        super().__init__()
        check_sizes(channels=channels, inner=inner)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.project = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended map in the shape of ``x`` (B, C, H, W)."""
        theta, phi, g = (branch(x).flatten(2) for branch in (self.theta, self.phi, self.g))
        # Divided before the sum over positions, which could leave float16's range.
        gathered = torch.bmm(g, phi.transpose(1, 2) / x[0, 0].numel())
        attended = torch.bmm(gathered, theta).unflatten(2, x.shape[2:])
        attention: Tensor = self.norm(self.project(attended))
        return x + attention


def insert_non_local(stage: nn.Sequential, channels: int, count: int, inner: int = 1) -> list[NonLocal]:
    """Put a non-local block behind each of the last ``count`` blocks of a stage, in place.

    The blocks are the children of the innermost sequence at the stage's end. Where there are fewer than ``count``,
    each gets one; where the stage does not end in a sequence, one follows the stage's last module. The modules of the
    stage keep their names in the state dict.

    Args:
        stage: A stage of a :class:`~vireid_lightning.modules.Backbone`.
        channels: Number of channels of the stage's map.
        count: Number of non-local blocks.
        inner: Number of channels inside a non-local block.

    Returns:
        The inserted blocks, first to last.
    """
    check_number("count", count, 0, whole=True)
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
