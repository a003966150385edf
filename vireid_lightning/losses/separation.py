"""The separation loss of pattern masks (Wu et al., CVPR 2021)."""

from __future__ import annotations

from torch import Tensor

from vireid_lightning.precision import in_float32


@in_float32
def separation_loss(masks: Tensor) -> Tensor:
    """Keep the pattern masks of an image from covering the same pixels (Wu et al., CVPR 2021).

    It is the mean, over images and over the L (L - 1) / 2 pairs l < k of an image's masks, of the inner product over
    pixels <M_l, M_k>. With a single mask there is no pair, and the loss is 0.

    Args:
        masks: (B, L, H, W), values in (0, 1). Any floating type; computed in float32 at least.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 masks).

    Example:
        >>> separation_loss(torch.ones(1, 2, 2, 2))
        tensor(4.)
    """
    batch, parts = masks.shape[:2]
    # Twice the sum over pairs is the square of the sum less the sum of the squares, pixel by pixel.
    overlap = (masks.sum(dim=1).square() - masks.square().sum(dim=1)).sum() / 2
    return overlap / (batch * max(parts * (parts - 1) // 2, 1))
