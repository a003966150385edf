"""The last stride of a four-stage network, taken out without dilation."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers.blur_pool import BlurPool2d
from timm.layers.conv2d_same import Conv2dSame
from timm.models import swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from torch import Tensor, nn

_MERGINGS = (swin_transformer.PatchMerging, swin_transformer_v2.PatchMerging, swin_transformer_v2_cr.PatchMerging)


class DenseMerging(nn.Module):
    """Patch merging at every position: what a 2 x 2 merging makes of the square that begins at each pixel.

    A row and a column of zeros are added at the end, as an even kernel needs them.

    Args:
        merging: Patch merging of a Swin transformer, which halves maps (B, H, W, C).
    """

    def __init__(self, merging: nn.Module) -> None:
        super().__init__()
        self.merging = merging

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, H, W, D) for a map (B, H, W, C)."""
        padded = F.pad(x, (0, 0, 0, 1, 0, 1))
        # Squares side by side, which is what the merging cuts the map into.
        squares = padded.unfold(1, 2, 1).unfold(2, 2, 1)
        merged: Tensor = self.merging(squares.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2))
        return merged


def remove_stride(stage: nn.Module) -> None:
    """Give every strided convolution, pooling and merging of a stage the stride 1, so that its maps keep their size."""
    for name, module in list(stage.named_modules()):
        replacement = _without_stride(module)
        if replacement is not module:
            parent, _, child = name.rpartition(".")
            setattr(stage.get_submodule(parent), child, replacement)


def _without_stride(module: nn.Module) -> nn.Module:
    if isinstance(module, _MERGINGS):
        return DenseMerging(module)
    if isinstance(module, BlurPool2d):
        return nn.Identity()  # its blur only prepares the stride
    if isinstance(module, nn.AvgPool2d | nn.MaxPool2d) and module.stride not in (1, (1, 1)):
        kernel = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
        if kernel % 2 == 0:
            return nn.Identity()  # such a pooling only halves the map; timm, too, builds none where the stride is 1
        module.stride = 1
    if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
        module.stride = (1, 1)
        if module.kernel_size[0] % 2 == 0 and type(module) is nn.Conv2d:
            # No symmetric padding keeps the size under an even kernel, so a row and a column are added at the end.
            same = Conv2dSame(
                module.in_channels,
                module.out_channels,
                (module.kernel_size[0], module.kernel_size[1]),
                dilation=(module.dilation[0], module.dilation[1]),
                groups=module.groups,
                bias=module.bias is not None,
            )
            same.weight, same.bias = module.weight, module.bias
            return same
    return module
