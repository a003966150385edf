"""Stage 2 of CMAM: contrast with the cluster memory, and two models that agree on classes and distances."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def prototype_logits(embeddings: Tensor, prototypes: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Return <normalised embedding, prototype> / temperature, whose cross-entropy is the cluster contrast loss.

    Args:
        embeddings: (B, D), normalised here.
        prototypes: (C, D) L2-normalised, without gradient: they follow by :func:`update_memory`.
        temperature: Above 0.

    Returns:
        (B, C), float32 (float64 for float64 embeddings).
    """
    return F.linear(F.normalize(embeddings, dim=1), prototypes.detach().to(embeddings.dtype)) / temperature


@in_float32
def distance_difference(embeddings: Tensor, other: Tensor) -> Tensor:
    """Return the squared Frobenius norm of D - D', the Euclidean distances within the batch under two models.

    Args:
        embeddings: (B, D), normalised here.
        other: (B, D'), normalised here.

    Returns:
        Scalar: the sum over all B * B pairs. Gradient flows into both; that of a distance of 0 is 0.
    """
    first, second = F.normalize(embeddings, dim=1), F.normalize(other, dim=1)
    return (euclidean_distances(first, first) - euclidean_distances(second, second)).square().sum()
