"""Circle softmax: a classifier on cosines whose margin and scale follow each logit's distance from its optimum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.arguments import check_setting
from vireid_lightning.precision import in_float32


@in_float32
def circle_softmax_logits(
    embeddings: Tensor, weight: Tensor, identity: Tensor, *, scale: float = 64.0, margin: float = 0.35
) -> Tensor:
    """Return the logits of the circle loss in its classification form (Sun et al., CVPR 2020, eq. 6 and 9).

    With s the cosine of an embedding and a class weight, the logit of the image's own class is
    scale * max(0, 1 + margin - s) * (s - (1 - margin)), and that of any other class is
    scale * max(0, s + margin) * (s - margin). The factors max(...) carry no gradient. The loss is the cross-entropy of
    these logits, which the caller computes.

    Args:
        embeddings: (B, D), L2-normalised here; a row of zeros has cosines of 0.
        weight: (C, D) class weights, L2-normalised here, so that their lengths do not count.
        identity: (B,) int64, 0 to C - 1.
        scale: Factor of all logits, the inverse of a temperature.
        margin: Margin m of the paper, which also sets the optima: 1 + m for the own class, -m for the others.

    Returns:
        (B, C) logits, float32 (float64 for float64 embeddings).

    Raises:
        VIReIDError: If an identity on the CPU has no class weight (on a GPU torch's own error comes), or a setting
            is out of its range.

    Example:
        >>> circle_softmax_logits(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), scale=1.0, margin=0.25)
        tensor([[ 0.0625, -0.0625],
                [-0.0625,  0.0625]])
    """
    check_setting("scale", scale, above=True)
    check_setting("margin", margin)
    # Where reading the identities is free; on a GPU the scatter below fails on others.
    if (
        len(identity)
        and identity.device.type == "cpu"
        and not 0 <= int(identity.min()) <= int(identity.max()) < len(weight)
    ):
        raise VIReIDError(
            f"The circle softmax has {len(weight)} classes, but the identities of the batch run from "
            f"{int(identity.min())} to {int(identity.max())}; number them from 0."
        )
    cosine = F.linear(F.normalize(embeddings, dim=1), F.normalize(weight, dim=1))
    fixed = cosine.detach()
    positive = (1 + margin - fixed).clamp(min=0) * (cosine - (1 - margin))
    negative = (fixed + margin).clamp(min=0) * (cosine - margin)
    own = torch.zeros_like(fixed, dtype=torch.bool).scatter_(1, identity[:, None], True)
    return scale * torch.where(own, positive, negative)
