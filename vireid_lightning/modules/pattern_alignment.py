"""Pattern alignment: a map pooled under several learnt masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid_lightning.kinds import check_sizes
from vireid_lightning.precision import widen


class PatternAlignment(nn.Module):
    """Pools a map under several learnt soft masks: the PAM of Wu et al., CVPR 2021.

    The masks M = sigmoid(conv1x1(F)) find patterns that both modalities show. The embedding is [p_1, ..., p_L, gap(F)],
    where p_l is the mean over pixels of M_l * F. The convolution's bias starts at 0.

    Args:
        channels: Number of channels C of the map F.
        parts: Number of masks L; 6 in the paper.

    Attributes:
        out_features: Length (L + 1) * C of the embedding.
    """

    def __init__(self, channels: int, parts: int = 6) -> None:
        super().__init__()
        check_sizes(channels=channels, parts=parts)
        self.masks = nn.Conv2d(channels, parts, kernel_size=1)
        assert self.masks.bias is not None
        nn.init.zeros_(self.masks.bias)
        self.out_features = (parts + 1) * channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, (L + 1) * C) and the masks (B, L, H, W) of a map (B, C, H, W).

        Both have at least the precision of float32, because metric losses act on them.
        """
        masks = torch.sigmoid(widen(self.masks(x)))
        # Average pooling is a contraction with a mask of ones, so one matrix product gives all vectors.
        everywhere = torch.ones_like(masks[:, :1])
        weights = torch.cat([masks, everywhere], dim=1).flatten(2) / masks[0, 0].numel()
        with torch.autocast(x.device.type, enabled=False):
            vectors = weights @ widen(x).flatten(2).transpose(1, 2)
        return vectors.flatten(1), masks
