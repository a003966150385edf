"""The weighted regularised triplet loss with loops over anchors, in double precision."""

from __future__ import annotations

import torch


def weighted_regularized_triplet_reference(embeddings, identity, form="release"):
    embeddings = embeddings.double()
    losses = []
    for anchor in range(len(identity)):
        positive, negative = [], []
        for other in range(len(identity)):
            squared = ((embeddings[anchor] - embeddings[other]) ** 2).sum()
            distance = squared.sqrt() if anchor != other else squared * 0
            (positive if identity[anchor] == identity[other] else negative).append(distance)
        if not negative:
            continue
        positive, negative = torch.stack(positive), torch.stack(negative)
        if form == "softmax":
            weights = positive.softmax(0), (-negative).softmax(0)
        else:
            rising, falling = (positive - positive.max()).exp(), (-negative).exp()
            weights = rising / (rising.sum() + 1e-6), falling / (falling.sum() + 1e-6)
        gap = (weights[0] * positive).sum() - (weights[1] * negative).sum()
        losses.append(torch.logaddexp(gap, gap * 0))
    return torch.stack(losses).mean()
