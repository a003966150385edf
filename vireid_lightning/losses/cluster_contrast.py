"""Contrast with a cluster memory, and the agreement of two models on distances (Wu et al., TCSVT 2024)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.losses.arguments import check_setting
from vireid_lightning.losses.distances import euclidean_distances
from vireid_lightning.precision import in_float32


@in_float32
def prototype_logits(embeddings: Tensor, prototypes: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Return cosine(embedding, prototype) / temperature, logits whose cross-entropy is the cluster contrast loss.

    Args:
        embeddings: (B, D), L2-normalised here.
        prototypes: (C, D), L2-normalised. They get no gradient; a memory follows by ``clustering.update_memory``.
        temperature: Divisor of the cosines, above 0.

    Returns:
        (B, C) logits, float32 (float64 for float64 embeddings).

    Raises:
        VIReIDError: If the temperature is no number above 0.

    Example:
        >>> prototype_logits(torch.tensor([[0.0, 3.0]]), torch.eye(2), temperature=0.5)
        tensor([[0., 2.]])
    """
    check_setting("temperature", temperature, above=True)
    return F.linear(F.normalize(embeddings, dim=1), prototypes.detach().to(embeddings.dtype)) / temperature


@in_float32
def distance_difference(embeddings: Tensor, other: Tensor) -> Tensor:
    """Return the squared Frobenius norm of D - D', the batch's Euclidean distance matrices under two models.

    Args:
        embeddings: (B, D) of one model, L2-normalised here.
        other: (B, D') of the other model for the same images, L2-normalised here.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 embeddings): the sum over all B * B pairs. Gradients flow
        into both arguments; the gradient of a distance of 0 is 0.
    """
    first, second = F.normalize(embeddings, dim=1), F.normalize(other, dim=1)
    return (euclidean_distances(first, first) - euclidean_distances(second, second)).square().sum()
