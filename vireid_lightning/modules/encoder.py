"""The network that most methods share: a backbone, a pooling, a BN-neck."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.pooling import GeM
from vireid_lightning.modules.trunk import BackboneSettings
from vireid_lightning.precision import widen


class Encoding(NamedTuple):
    """What an encoder makes of a batch of images.

    Attributes:
        maps: The backbone's five maps, each (B, C, H, W).
        pooled: f, the pooled last map or the class token, (B, D): what metric losses act on.
        z: The output of the neck, (B, D): what classifiers and retrieval act on.
    """

    maps: list[Tensor]
    pooled: Tensor
    z: Tensor


def encode(backbone: Backbone, pool: nn.Module, neck: nn.Module, images: Tensor, modality: Tensor) -> Encoding:
    """Return maps, pooled features and the neck's output.

    Args:
        backbone: The backbone.
        pool: Module from a map (B, C, H, W) to (B, C). Not used where the backbone gives its class token.
        neck: Module from (B, C) to (B, D).
        images: (B, 3, H, W) float.
        modality: (B,) int64, 0 visible, 1 infrared.
    """
    maps, token = backbone.features_and_token(images, modality)
    pooled = pool(maps[-1]) if token is None else widen(token)
    return Encoding(maps, pooled, neck(pooled))


class Encoder(nn.Module):
    """A backbone for both modalities, a pooling of its last map, and a BN-neck.

    Args:
        backbone: Name of a timm network, or the class of one's own; see :class:`~vireid_lightning.modules.Backbone`.
        pretrained: Whether to start from trained weights: those of the file ``weights``, else timm's for the name.
        weights: File with a state dict of the backbone, ``package:NAME`` or ``small``.
        two_stream_until: Number of parts of the backbone that exist per modality: 0 is one stream, 1 the stem.
        pool: Module that pools the last map, such as :class:`~vireid_lightning.modules.pooling.GeM`, which is told
            whether the map is signed.
        settings: How the backbone is built beyond its name and weights.
        stage1_for: What needs stage 1's map at stride 4, as the beginning of a sentence; None needs nothing.

    Example:
        >>> import torch
        >>> from vireid_lightning.modules import GeM
        >>> encoder = Encoder("resnet10t", pretrained=False, pool=GeM())
        >>> encoder(torch.zeros(4, 3, 64, 32), torch.tensor([0, 0, 1, 1])).z.shape
        torch.Size([4, 512])
    """

    def __init__(
        self,
        backbone: str | type[nn.Module] = "resnet50.tv_in1k",
        *,
        pretrained: bool = True,
        weights: str | None = None,
        two_stream_until: int = 0,
        pool: nn.Module,
        settings: BackboneSettings | dict[str, Any] = BackboneSettings(),
        stage1_for: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            weights=weights,
            two_stream_until=two_stream_until,
            settings=settings,
            stage1_for=stage1_for,
        )
        if isinstance(pool, GeM) and self.backbone.signed:
            pool.keep_signs()
        self.pool = nn.Identity() if self.backbone.token == "class" else pool
        self.neck = BNNeck(self.backbone.channels[-1])

    def forward(self, images: Tensor, modality: Tensor) -> Encoding:
        """Return maps, pooled features and the neck's output of images (B, 3, H, W)."""
        return encode(self.backbone, self.pool, self.neck, images, modality)
