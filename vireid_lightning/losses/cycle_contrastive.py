"""Part-aware cycle-contrastive losses: what body parts retrieve across the modalities must agree or lead back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.arguments import check_setting
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
    _check(visible_parts, infrared_parts, temperature)
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


@in_float32
def cycle_return_loss(visible_parts: Tensor, infrared_parts: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Send each body part to the other modality and back: PCC in its literal sense (Wan et al., IEEE TIFS 2023).

    Every part q of the batch is sent out in turn. It retrieves its soft nearest neighbour in the other modality, which
    retrieves its own back in the modality of q:

        n = sum over u in U_other of softmax_u(<q, u> / t) u,    r = sum over v in U_own of softmax_v(<n, v> / t) v,

    both L2-normalised. The return r must be q among all parts of its modality, U_own: InfoNCE on the cosines of r with
    them over t, averaged over all parts of both modalities. Gradients flow through the weights. The paper's text does
    not fix the form; :func:`cycle_contrastive_loss` is the other reading.

    The loss is 0, with gradients of 0, where a modality is absent. A part that is the only one of its modality can only
    return to itself and costs 0.

    Args:
        visible_parts: (N, D) features of the batch's visible parts, U_visible; L2-normalised here. Any floating type;
            computed in float32, also under autocast (float64 for float64).
        infrared_parts: (M, D) features of the infrared parts, U_infrared; L2-normalised here.
        temperature: Divisor t of the cosines, in both retrievals and in InfoNCE; above 0.

    Returns:
        A scalar, float32 (float64 for float64 features).

    Raises:
        VIReIDError: If the shapes do not fit together or the temperature is not above 0.

    Example:
        >>> paired = cycle_return_loss(torch.eye(4), torch.eye(4))
        >>> collapsed = cycle_return_loss(torch.eye(4), torch.eye(4)[:1].repeat(4, 1))
        >>> bool(paired < collapsed)
        True
    """
    _check(visible_parts, infrared_parts, temperature)
    visible, infrared = F.normalize(visible_parts, dim=1), F.normalize(infrared_parts, dim=1)
    if not len(visible) or not len(infrared):
        return visible.sum() * 0 + infrared.sum() * 0
    costs = []
    for own, other in ((visible, infrared), (infrared, visible)):
        returned = _retrieve(_retrieve(own, other, temperature), own, temperature)
        agreement = returned @ own.t() / temperature
        costs.append(F.cross_entropy(agreement, torch.arange(len(own), device=own.device), reduction="none"))
    return torch.cat(costs).mean()


def _retrieve(queries: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Return the soft nearest neighbours of L2-normalised queries, L2-normalised."""
    weights = (queries @ candidates.t() / temperature).softmax(1)
    return F.normalize(weights @ candidates, dim=1)


def _check(visible_parts: Tensor, infrared_parts: Tensor, temperature: float) -> None:
    if visible_parts.ndim != 2 or infrared_parts.ndim != 2 or visible_parts.shape[1] != infrared_parts.shape[1]:
        raise VIReIDError(
            f"A cycle-contrastive loss needs part features (N, D) and (M, D), and got {tuple(visible_parts.shape)} and "
            f"{tuple(infrared_parts.shape)}."
        )
    check_setting("temperature", temperature, above=True)
