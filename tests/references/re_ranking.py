"""k-reciprocal re-ranking image by image on full matrices, from the definition: slow and obvious."""

from __future__ import annotations

import numpy as np


def re_rank(query, gallery, k1=20, k2=6, lambda_value=0.3, dtype=np.float64):
    images = np.concatenate([query, gallery]).astype(dtype)
    count, queries = len(images), len(query)
    square = (images**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None, :] - 2 * images @ images.T, 0)
    np.fill_diagonal(distance, 0)
    order_by = distance.copy()
    np.fill_diagonal(order_by, -1)  # itself first
    rank = np.argsort(order_by, axis=1)
    distance /= distance.max(axis=1, keepdims=True)

    def reciprocal(image, neighbours):
        forward = rank[image, : neighbours + 1]
        backward = rank[forward, : neighbours + 1]
        return forward[(backward == image).any(axis=1)]

    weights = np.zeros((count, count), dtype=dtype)
    for image in range(count):
        own = reciprocal(image, k1)
        expanded = own
        for other in own:
            candidate = reciprocal(other, int(np.around(k1 / 2)))
            if len(np.intersect1d(candidate, own)) > 2 / 3 * len(candidate):
                expanded = np.append(expanded, candidate)
        expanded = np.unique(expanded)
        weight = np.exp(-distance[image, expanded])
        weights[image, expanded] = weight / weight.sum()
    if k2 > 1:
        weights = np.stack([weights[rank[image, :k2]].mean(axis=0) for image in range(count)])

    inverted = [np.flatnonzero(weights[:, column]) for column in range(count)]
    result = np.zeros((queries, count - queries), dtype=dtype)
    for image in range(queries):
        shared = np.zeros(count, dtype=dtype)
        for column in np.flatnonzero(weights[image]):
            others = inverted[column]
            shared[others] += np.minimum(weights[image, column], weights[others, column])
        jaccard = 1 - shared / (2 - shared)
        result[image] = ((1 - lambda_value) * jaccard + lambda_value * distance[image])[queries:]
    return result
