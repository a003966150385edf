"""Losses of DCLNet's pixel classifiers: is a pixel a person's, which part does it show, do its neighbours agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import in_float32


@in_float32
def pixel_classification_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of background against foreground, plus that of the part over the foreground (Sun et al., 2022).

    Args:
        logits: (N, 2 + parts, H, W): background and foreground, then one for each part. Computed in float32.
        mask: (N, H, W) integers: 0 for background, a part's number from 1 to ``parts`` otherwise.

    Returns:
        A scalar, float32 (float64 for float64 logits); each of the two terms is one mean over its pixels of the whole
        batch, the second 0 where no pixel is foreground.

    Raises:
        VIReIDError: If ``logits`` has fewer than 3 channels or ``mask`` is not of its size.
    """
    if logits.ndim != 4 or logits.shape[1] < 3 or mask.shape != (logits.shape[0], *logits.shape[2:]):
        raise VIReIDError(
            f"Pixel logits (N, 2 + parts, H, W) and a mask (N, H, W) belong together, but got {tuple(logits.shape)} "
            f"and {tuple(mask.shape)}."
        )
    foreground = mask > 0
    foreground_loss = F.cross_entropy(logits[:, :2], foreground.long())
    # Background is ignored; a sum over a count kept above 0 stays finite where there is nothing else.
    part_loss = F.cross_entropy(
        logits[:, 2:], torch.where(foreground, mask.long() - 1, -100), ignore_index=-100, reduction="sum"
    )
    return foreground_loss + part_loss / foreground.sum().clamp(min=1)


@in_float32
def continuity_loss(logits: Tensor) -> Tensor:
    """Half the sum of the mean absolute differences between vertical and between horizontal neighbours' logits.

    Args:
        logits: (N, C, H, W). Computed in float32. A side of one pixel has no neighbours and contributes 0.

    Returns:
        A scalar, float32 (float64 for float64 logits).
    """
    vertical, horizontal = (logits.diff(dim=dim).abs() for dim in (2, 3))
    return 0.5 * (vertical.sum() / max(vertical.numel(), 1) + horizontal.sum() / max(horizontal.numel(), 1))
