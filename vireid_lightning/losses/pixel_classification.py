"""Losses of pixel classifiers: foreground or background, which part of the body, and equal neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import in_float32


@in_float32
def pixel_classification_loss(
    logits: Tensor, mask: Tensor, *, mean_count: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Classify pixels: background or foreground, and the part of the body (Sun et al., ACM MM 2022).

    The loss is the mean cross-entropy of background against foreground over all pixels of the batch, plus the mean
    cross-entropy of the parts over its foreground pixels.

    Args:
        logits: (N, 2 + parts, H, W): background, foreground, then each part. Any floating type; computed in float32
            at least.
        mask: (N, H, W) integers: 0 for background, the number of a part, 1 to ``parts``, otherwise.
        mean_count: Function from the number of foreground pixels to its mean over processes, which takes its place; the
            mean of the processes' losses is then that of the whole batch.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 logits). The second term is 0 where no pixel is foreground.

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
    count = foreground.sum()
    count = count if mean_count is None else mean_count(count)
    part_loss = F.cross_entropy(
        logits[:, 2:], torch.where(foreground, mask.long() - 1, -100), ignore_index=-100, reduction="sum"
    )
    return foreground_loss + part_loss / torch.where(count > 0, count, 1)


@in_float32
def continuity_loss(logits: Tensor) -> Tensor:
    """Return half of the mean absolute differences of vertical and of horizontal neighbours' logits, added up.

    It keeps the classes of neighbouring pixels alike (Sun et al., ACM MM 2022).

    Args:
        logits: (N, C, H, W). Any floating type; computed in float32 at least. Along a side of one pixel there are no
            neighbours, and that term is 0.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 logits).
    """
    vertical, horizontal = (logits.diff(dim=dim).abs() for dim in (2, 3))
    return 0.5 * (vertical.sum() / max(vertical.numel(), 1) + horizontal.sum() / max(horizontal.numel(), 1))
