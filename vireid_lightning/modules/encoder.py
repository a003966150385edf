"""The network that most methods share: a backbone, a pooling, a BN-neck."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.neck import BNNeck


class Encoding(NamedTuple):
    """What an encoder makes of a batch of images.

    Attributes:
        maps: The backbone's five maps, each (B, C, H, W).
        pooled: f, the pooled last map, (B, D): what metric losses act on.
        z: The output of the neck, (B, D): what classifiers and retrieval act on.
    """

    maps: list[Tensor]
    pooled: Tensor
    z: Tensor


def encode(backbone: Backbone, pool: nn.Module, neck: nn.Module, images: Tensor, modality: Tensor) -> Encoding:
    """Return maps, pooled features and the neck's output.

    Args:
        backbone: The backbone.
        pool: Module from a map (B, C, H, W) to (B, C).
        neck: Module from (B, C) to (B, D).
        images: (B, 3, H, W) float.
        modality: (B,) int64, 0 visible, 1 infrared.
    """
    maps = backbone.features(images, modality)
    pooled = pool(maps[-1])
    return Encoding(maps, pooled, neck(pooled))


class Encoder(nn.Module):
    """A backbone for both modalities, a pooling of its last map, and a BN-neck.

    Args:
        backbone: Name of a timm CNN with four stages.
        pretrained: Whether to start from trained weights: those of the file ``weights``, else timm's for the name.
        weights: File with a state dict of the backbone, ``package:NAME`` or ``small``.
        two_stream_until: Number of parts of the backbone that exist per modality: 0 is one stream, 1 the stem.
        pool: Module that pools the last map, such as :class:`~vireid_lightning.modules.pooling.GeM`.

    Example:
        >>> import torch
        >>> from vireid_lightning.modules import GeM
        >>> encoder = Encoder("resnet10t", pretrained=False, pool=GeM())
        >>> encoder(torch.zeros(4, 3, 64, 32), torch.tensor([0, 0, 1, 1])).z.shape
        torch.Size([4, 512])
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        pretrained: bool = True,
        weights: str | None = None,
        two_stream_until: int = 0,
        pool: nn.Module,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, pretrained=pretrained, weights=weights, two_stream_until=two_stream_until)
        self.pool = pool
        self.neck = BNNeck(self.backbone.channels[-1])

    def forward(self, images: Tensor, modality: Tensor) -> Encoding:
        """Return maps, pooled features and the neck's output of images (B, 3, H, W)."""
        return encode(self.backbone, self.pool, self.neck, images, modality)
