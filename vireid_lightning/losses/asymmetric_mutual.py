"""Asymmetric mutual learning (Wu et al., TCSVT 2024): gray views learn from colour images, never back.

Model 1 sees the colour images (a) and their gray views (b), model 2 the gray views alone (c). Model 2 follows model 1's
output for the colour images, and model 1's output for the gray views follows model 2. No gradient reaches the output
for the colour images, which makes the learning asymmetric.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.precision import in_float32


@in_float32
def symmetric_kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return J(p, q) = (KL(q || p) + KL(p || q)) / 2, summed over batch and classes.

    Args:
        logits: (B, C), whose softmax is p.
        other: (B, C), whose softmax is q.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 logits). Gradients flow into both arguments; detach the one
        that is a fixed target.

    Example:
        >>> symmetric_kl_divergence(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
        tensor(1.5232)
    """
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    # KL(q || p) + KL(p || q) = sum of (p - q)(log p - log q)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


@in_float32
def similarity_difference(embeddings: Tensor, other: Tensor) -> Tensor:
    """Return the squared Frobenius norm of S - S', the batch's cosine matrices under two sets of embeddings.

    Args:
        embeddings: (B, D), L2-normalised here.
        other: (B, D') for the same images, L2-normalised here.

    Returns:
        A scalar of 0 or more, float32 (float64 for float64 embeddings): the sum over all B * B pairs. Gradients flow
        into both arguments.
    """
    first, second = F.normalize(embeddings, dim=1), F.normalize(other, dim=1)
    return (first @ first.T - second @ second.T).square().sum()


def asymmetric_kl(colour: Tensor, gray: Tensor, gray_extractor: Tensor) -> Tensor:
    """Return J(c, sg a) + J(b, sg c), where J is the symmetric divergence and sg stops the gradient.

    Args:
        colour: a, (B, C) logits of model 1 on the colour images; they get no gradient.
        gray: b, (B, C) logits of model 1 on the gray views.
        gray_extractor: c, (B, C) logits of model 2 on the gray views; they get gradient from the first term alone.

    Returns:
        A scalar of 0 or more, summed over batch and classes.
    """
    return symmetric_kl_divergence(gray_extractor, colour.detach()) + symmetric_kl_divergence(
        gray, gray_extractor.detach()
    )


def asymmetric_similarity(colour: Tensor, gray: Tensor, gray_extractor: Tensor) -> Tensor:
    """Return ||S(sg a) - S(c)||^2 + ||S(sg c) - S(b)||^2, where S is the batch's cosine matrix.

    As in :func:`asymmetric_kl`, sg stops the gradient.

    Args:
        colour: a, (B, D) embeddings by model 1 of the colour images; they get no gradient.
        gray: b, (B, D) embeddings by model 1 of the gray views.
        gray_extractor: c, (B, D') embeddings by model 2 of the gray views; they get gradient from the first term alone.

    Returns:
        A scalar of 0 or more, summed over all pairs of the batch.
    """
    return similarity_difference(gray_extractor, colour.detach()) + similarity_difference(gray, gray_extractor.detach())
