"""CMAM's terms image by image and pair by pair, in plain loops over the equations."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum() / (first.square().sum().sqrt() * second.square().sum().sqrt())


def circle_logits(embeddings, weight, identity, scale, margin):
    rows = []
    for image, own in zip(embeddings, identity.tolist()):
        row = []
        for number, centre in enumerate(weight):
            s = cosine(image, centre)
            if number == own:
                row.append(scale * max(0.0, 1 + margin - s.item()) * (s - (1 - margin)))
            else:
                row.append(scale * max(0.0, s.item() + margin) * (s - margin))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), summed over images and classes."""
    return sum(p[i, k] * (p[i, k].log() - q[i, k].log()) for i in range(p.shape[0]) for k in range(p.shape[1]))


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    p, q = logits.softmax(dim=1), other.softmax(dim=1)
    return (kl(q, p) + kl(p, q)) / 2


def similarity_difference(first: Tensor, second: Tensor) -> Tensor:
    total = first.new_zeros(())
    for i in range(len(first)):
        for j in range(len(first)):
            total = total + (cosine(first[i], first[j]) - cosine(second[i], second[j])) ** 2
    return total


def distance_difference(first: Tensor, second: Tensor) -> Tensor:
    """Distances of unit vectors by their cosine; an image's distance from itself is a constant 0."""
    total = first.new_zeros(())
    for i in range(len(first)):
        for j in range(len(first)):
            if i != j:
                distances = [(2 - 2 * cosine(z[i], z[j])).sqrt() for z in (first, second)]
                total = total + (distances[0] - distances[1]) ** 2
    return total


def cluster_contrast(embeddings: Tensor, prototypes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    total = embeddings.new_zeros(())
    for image, label in zip(embeddings, labels.tolist()):
        unit = image / image.square().sum().sqrt()
        scores = [(unit * prototype).sum() / temperature for prototype in prototypes]
        total = total - (scores[label] - torch.stack(scores).logsumexp(dim=0))
    return total / len(embeddings)


def soft_margin_triplet(embeddings: Tensor, identity: Tensor) -> Tensor:
    total = embeddings.new_zeros(())
    for i in range(len(embeddings)):
        distances = [(embeddings[i] - embeddings[j]).square().sum().sqrt() for j in range(len(embeddings))]
        positive = max(
            (distances[j] for j in range(len(distances)) if j != i and identity[j] == identity[i]), key=Tensor.item
        )
        negative = min((distances[j] for j in range(len(distances)) if identity[j] != identity[i]), key=Tensor.item)
        total = total + torch.log(1 + torch.exp(positive - negative))
    return total / len(embeddings)


def smoothed_cross_entropy(logits: Tensor, identity: Tensor, smoothing: float) -> Tensor:
    total = logits.new_zeros(())
    for row, own in zip(logits, identity.tolist()):
        shares = [smoothing / len(row) + (1 - smoothing) * (number == own) for number in range(len(row))]
        log_total = row.logsumexp(dim=0)
        total = total - sum(share * (value - log_total) for share, value in zip(shares, row))
    return total / len(logits)
