"""HRNet as parts: its branches are computed at once, and its head joins them from stride 4 down to stride 32."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from timm.models.hrnet import HighResolutionNet
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.last_stride import remove_stride
from vireid_lightning.modules.timm_creation import create, create_pretrained
from vireid_lightning.modules.timm_stages import check_maps, explain_kinds
from vireid_lightning.modules.trunk import BackboneSettings, Carried, Trunk

_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
_HEAD = ("incre_modules", "downsamp_modules", "final_layer", "global_pool", "head_drop", "classifier")


class Branches(nn.Module):
    """All four branches of the network; the first one is this part's map.

    Args:
        network: The network; its stem and its head are taken away.
        increase: The head's module of the first branch.
    """

    def __init__(self, network: HighResolutionNet, increase: nn.Module) -> None:
        super().__init__()
        for name in (*_STEM, *_HEAD):
            setattr(network, name, None)
        self.network = network
        self.increase = increase

    def forward(self, x: Tensor) -> Carried:
        """Return the map at stride 4, with the branches at strides 8, 16 and 32."""
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise VIReIDError(
                f"An image of {4 * x.shape[2]} x {4 * x.shape[3]} pixels does not fit the branches of an HRNet; set "
                "image_size to multiples of 32."
            )
        first, *others = self.network.stages(x)
        return Carried(self.increase(first), tuple(others))


class Join(nn.Module):
    """Adds the next branch to the map so far.

    Args:
        increase: The head's module of the branch.
        downsample: The head's module that brings the map to the branch's size and channels.
        final: What follows the sum.
    """

    def __init__(self, increase: nn.Module, downsample: nn.Module, final: nn.Module) -> None:
        super().__init__()
        self.increase, self.downsample, self.final = increase, downsample, final

    def forward(self, x: Carried) -> Carried:
        """Return the sum as the map, with the branches that are left."""
        branch, *others = x.rest
        down = self.downsample(x.map)
        increased = self.increase(branch)
        if increased.shape[2:] != down.shape[2:]:  # without the last stride; nearest, as the network joins branches
            increased = F.interpolate(increased, (down.shape[2], down.shape[3]), mode="nearest")
        return Carried(self.final(increased + down), tuple(others))


def build_high_resolution(name: str, settings: BackboneSettings, *, pretrained: bool, weights: str | None) -> Trunk:
    """Build the parts of an HRNet: its last map is that of its classification head, in front of the pooling.

    Args:
        name: A timm model name of an HRNet.
        settings: How the backbone is built.
        pretrained: Load pretrained weights, from ``weights`` or, where that is None, those of the name's tag.
        weights: Local file with a timm state dict of the model.

    Raises:
        VIReIDError: If the weights cannot be loaded.
    """
    settings.require_defaults(name, "a four-stage network", "token", "patch_stride")
    arguments = {"num_classes": 0, "drop_path": settings.drop_path}
    network = create_pretrained(name, weights, **arguments) if pretrained else create(name, **arguments)
    if not isinstance(network, HighResolutionNet) or network.incre_modules is None:
        raise VIReIDError(explain_kinds(name))
    stem = nn.Sequential(OrderedDict((part, getattr(network, part)) for part in _STEM))
    increase, downsample, final = network.incre_modules, network.downsamp_modules, network.final_layer
    finals = [nn.Identity(), nn.Identity(), final]
    joins = [Join(*modules) for modules in zip(increase[1:], downsample, finals)]
    if settings.last_stride == 1:
        remove_stride(joins[-1].downsample)
    return check_maps(
        [stem, Branches(network, increase[0]), *joins], name, settings.last_stride, streams=1, size=(96, 64)
    )
