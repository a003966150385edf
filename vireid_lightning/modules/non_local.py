"""Non-local blocks, and their place behind the last blocks of a stage."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.kinds import check_number, check_sizes
from vireid_lightning.precision import widen


class NonLocal(nn.Module):
    """Residual attention of every position on every other, without a softmax (Wang et al., CVPR 2018, eq. 6).

    y = x + BN(W(theta phi^T g / positions)), where theta, phi, g and W are 1x1 convolutions with biases. The scale and
    shift of the batch normalisation start at 0, so that a fresh block changes nothing. Without a softmax the products
    can be taken in the order theta (phi^T g), which never holds a (positions, positions) matrix.

    In training, on one process, the map is read once and written once: W is linear, so the mean and the variance that
    BN takes of its output follow from those of its few input channels, and W and BN together are one matrix product.

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
        branches = (self.theta, self.phi, self.g)
        weight, bias = (torch.cat([getattr(each, name) for each in branches]) for name in ("weight", "bias"))
        pixels = x.movedim(1, 3).flatten(1, 2)
        theta, phi, g = F.linear(pixels, weight.flatten(1), bias).chunk(3, dim=2)
        # Divided before the sum over positions, which could leave float16's range.
        gathered = torch.bmm((phi / pixels.shape[1]).transpose(1, 2), g)
        attended = torch.bmm(theta, gathered)
        if type(self.norm) is nn.BatchNorm2d and self.norm.training and attended[..., 0].numel() > 1:
            out = pixels + self._project_and_normalise(attended)
            result: Tensor = out.unflatten(1, x.shape[2:]).movedim(3, 1)
            return result
        attention: Tensor = self.norm(self.project(attended.movedim(2, 1).unflatten(2, x.shape[2:])))
        return x + attention

    def _project_and_normalise(self, attended: Tensor) -> Tensor:
        """Return BN(W(attended)) in training for (B, positions, inner): (B, positions, C)."""
        norm: Any = self.norm
        weight = widen(self.project.weight).flatten(1)
        with torch.autocast(attended.device.type, enabled=False):
            values = widen(attended).flatten(0, 1)
            mean = values.mean(0)
            centred = values - mean
            variance = (weight @ (centred.T @ centred / len(values)) * weight).sum(1)
            factor = norm.weight * (variance + norm.eps).rsqrt()
            # BatchNorm takes W's bias away again. Its gradient is 0 and not missing: DDP waits for every parameter's.
            bias: Any = self.project.bias
            shift = norm.bias + 0 * bias
            with torch.no_grad():
                norm.num_batches_tracked += 1
                unbiased = variance * len(values) / (len(values) - 1)
                for running, new in ((norm.running_mean, weight @ mean + bias), (norm.running_var, unbiased)):
                    running.lerp_(new.to(running.dtype), norm.momentum)
            inputs = (centred.view_as(attended), weight * factor[:, None], shift)
            return F.linear(*(each.to(attended.dtype) for each in inputs))


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
