"""Asymmetric mutual learning of CMAM (Wu et al., TCSVT 2024): the gray views learn from the colours, never back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vireid_lightning.precision import in_float32


@in_float32
def symmetric_kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return J(p, q) = (KL(q || p) + KL(p || q)) / 2, summed over batch and classes.

    Args:
        logits: (B, C), p = softmax of them.
        other: (B, C), q = softmax of them.

    Returns:
        Scalar of 0 or more. Gradient flows into both; detach what is to be a fixed target.
    """
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    # KL(q || p) + KL(p || q) = sum of (p - q)(log p - log q)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


@in_float32
def similarity_difference(embeddings: Tensor, other: Tensor) -> Tensor:
    """Return the squared Frobenius norm of S - S', the batch's cosine matrices under two sets of embeddings.

    Args:
        embeddings: (B, D), normalised here.
        other: (B, D').

    Returns:
        Scalar: the sum over all B * B pairs, each image with itself included (whose difference is 0).
    """
    first, second = F.normalize(embeddings, dim=1), F.normalize(other, dim=1)
    return (first @ first.T - second @ second.T).square().sum()


def asymmetric_kl(colour: Tensor, gray: Tensor, gray_extractor: Tensor) -> Tensor:
    """Return J(c, sg a) + J(b, sg c), with sg stopping the gradient.

    Model 2 follows the colour stream of model 1, and the gray stream of model 1 follows model 2. Nothing reaches the
    colour stream, which is what makes the learning asymmetric.

    Args:
        colour: a, (B, C) logits of model 1 on the colour images; never receives gradient.
        gray: b, (B, C) logits of model 1 on their gray views.
        gray_extractor: c, (B, C) logits of model 2 on their gray views; receives gradient as c, not as b's target.

    Returns:
        Scalar, summed over batch and classes.
    """
    return symmetric_kl_divergence(gray_extractor, colour.detach()) + symmetric_kl_divergence(
        gray, gray_extractor.detach()
    )


def asymmetric_similarity(colour: Tensor, gray: Tensor, gray_extractor: Tensor) -> Tensor:
    """Return ||S(sg a) - S(c)||^2 + ||S(sg c) - S(b)||^2 of the streams' embeddings, (B, D) each.

    Gradient flows as in :func:`asymmetric_kl`.

    Returns:
        Scalar, summed over all pairs of the batch.
    """
    return similarity_difference(gray_extractor, colour.detach()) + similarity_difference(gray, gray_extractor.detach())
