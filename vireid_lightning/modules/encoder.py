"""The usual network from images to the neck's output."""

from __future__ import annotations

from torch import Tensor, nn

from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.pooling import GeM


class Extractor(nn.Module):
    """Backbone for both modalities, GeM with a learnable exponent that starts at 3, BN-neck.

    Args:
        backbone: Name of a timm CNN with four stages.
        pretrained: Start from trained weights: ``weights``, else those that timm has for the name.
        weights: Local file with a timm state dict of the backbone.
    """

    def __init__(self, backbone: str, *, pretrained: bool = True, weights: str | None = None) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, pretrained=pretrained, weights=weights)
        self.pool = GeM(3.0, learnable=True)
        self.neck = BNNeck(self.backbone.channels[-1])

    def forward(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return z, (B, D), of images (B, 3, H, W)."""
        return self.neck(self.pool(self.backbone.features(images, modality)[-1]))
