"""Part-aware cycle-contrastive loss: what a body part retrieves from both modalities must agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.precision import in_float32


@in_float32
def cycle_contrastive_loss(visible_parts: Tensor, infrared_parts: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Contrast what each body part retrieves from the two modalities: PCC (Wan et al., IEEE TIFS 2023).

    Every part of the batch is a query q in turn. From each modality m it retrieves its soft nearest neighbour

        q_m = sum over u in U_m of softmax_u(<q, u> / t) u,

    where q itself is left out of its own modality: it would only find itself. The pair (q_infrared, q_visible) is
    positive, and what the other queries retrieve is negative: InfoNCE on cosines over t, from the visible to the
    infrared retrievals and back, averaged over both directions and all queries. Gradients flow through the weights.

    A query that is the only part of its modality has nothing to retrieve there and is left out. The loss is 0, with
    gradients of 0, where a modality is absent or fewer than two queries are left (nothing to contrast).

    Args:
        visible_parts: (N, D) features of the batch's visible parts, U_visible; L2-normalised here. Any floating type;
            computed in float32, also under autocast (float64 for float64).
        infrared_parts: (M, D) features of the infrared parts, U_infrared; L2-normalised here.
        temperature: Divisor t of the cosines, in the retrieval and in InfoNCE; above 0.

    Returns:
        A scalar, float32 (float64 for float64 features).

    Raises:
        VIReIDError: If the shapes do not fit together or the temperature is not above 0.

    Example:
        >>> agreed = cycle_contrastive_loss(torch.eye(4).repeat(2, 1), torch.eye(4).repeat(2, 1))
        >>> mixed = cycle_contrastive_loss(torch.eye(4).repeat(2, 1), 1 - torch.eye(4).repeat(2, 1))
        >>> bool(agreed < mixed)
        True
    """
    if visible_parts.ndim != 2 or infrared_parts.ndim != 2 or visible_parts.shape[1] != infrared_parts.shape[1]:
        raise VIReIDError(
            f"cycle_contrastive_loss needs part features (N, D) and (M, D), and got {tuple(visible_parts.shape)} and "
            f"{tuple(infrared_parts.shape)}."
        )
    if temperature <= 0:
        raise VIReIDError(f"cycle_contrastive_loss needs a temperature above 0, not {temperature}.")
    visible_count, infrared_count = len(visible_parts), len(infrared_parts)
    parts = F.normalize(torch.cat([visible_parts, infrared_parts]), dim=1)
    kept = [count for count in (visible_count, infrared_count) if count > 1]
    if not visible_count or not infrared_count or sum(kept) < 2:
        return parts.sum() * 0
    logits = parts @ parts.t() / temperature
    logits = logits.masked_fill(torch.eye(len(parts), dtype=torch.bool, device=parts.device), -torch.inf)
    if visible_count == 1:
        logits = logits[1:]
    if infrared_count == 1:
        logits = logits[:-1]
    to_visible, to_infrared = logits.split([visible_count, infrared_count], dim=1)
    from_visible = F.normalize(to_visible.softmax(1) @ parts[:visible_count], dim=1)
    from_infrared = F.normalize(to_infrared.softmax(1) @ parts[visible_count:], dim=1)
    agreement = from_visible @ from_infrared.t() / temperature
    own = torch.arange(len(agreement), device=parts.device)
    return (F.cross_entropy(agreement, own) + F.cross_entropy(agreement.t(), own)) / 2
