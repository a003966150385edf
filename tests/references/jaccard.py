"""The k-reciprocal Jaccard distance image by image, with dense N x N matrices, as the field's numpy code has it."""

from __future__ import annotations

import numpy as np


def ranked_neighbours(similarity: np.ndarray, count: int) -> np.ndarray:
    """Return each row's ``count`` nearest, nearest first."""
    similarity = similarity.copy()
    np.fill_diagonal(similarity, np.inf)
    count = min(count, len(similarity))
    found = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    rows = np.arange(len(similarity))[:, None]
    return found[rows, np.argsort(-similarity[rows, found], axis=1)]


def reciprocal_neighbours(rank: np.ndarray, image: int, count: int) -> np.ndarray:
    forward = rank[image, :count]
    backward = rank[forward, :count]
    return forward[np.where(backward == image)[0]]


def jaccard_reference(features: np.ndarray, k1: int = 30, k2: int = 6) -> np.ndarray:
    """Return the dense (N, N) distance in the features' dtype."""
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = len(features)
    similarity = features @ features.T
    distance = 2 - 2 * similarity
    rank = ranked_neighbours(similarity, max(k1, k2))
    half = int(np.around(k1 / 2)) + 1

    weights = np.zeros((count, count), dtype=features.dtype)
    for image in range(count):
        members = reciprocal_neighbours(rank, image, k1)
        expanded = members
        for candidate in members:
            theirs = reciprocal_neighbours(rank, candidate, half)
            if len(np.intersect1d(theirs, members)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weight = np.exp(-distance[image, expanded])
        weights[image, expanded] = weight / weight.sum()

    if k2 > 1:
        averaged = np.zeros_like(weights)
        for image in range(count):
            averaged[image] = weights[rank[image, :k2]].mean(axis=0)
        weights = averaged

    columns = [np.where(weights[:, image] != 0)[0] for image in range(count)]
    result = np.zeros((count, count), dtype=features.dtype)
    for image in range(count):
        overlap = np.zeros(count, dtype=features.dtype)
        for other in np.where(weights[image] != 0)[0]:
            sharing = columns[other]
            overlap[sharing] += np.minimum(weights[image, other], weights[sharing, other])
        result[image] = 1 - overlap / (2 - overlap)
    return np.maximum(result, 0)
