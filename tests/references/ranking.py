"""The per-query loop over sorted distances that the field's toolboxes score with: slow and obvious."""

from __future__ import annotations

import numpy as np


def score_queries(
    distance, query_identity, gallery_identity, query_camera, gallery_camera, removal="none", cmc="image", kind="stable"
):
    """Return (Q,) first rank (0: no match), AP and INP. ``kind="stable"`` breaks ties by gallery order."""
    order = np.argsort(distance, axis=1, kind=kind)
    first = np.zeros(len(distance), dtype=np.int64)
    average_precision, inverse_negative_penalty = np.zeros(len(distance)), np.zeros(len(distance))
    for query in range(len(distance)):
        ranked = order[query]
        identity, camera = gallery_identity[ranked], gallery_camera[ranked]
        if removal == "sysu" and query_camera[query] == 3:
            identity = identity[camera != 2]
        elif removal == "same-camera" and query_camera[query] >= 0:
            identity = identity[(identity != query_identity[query]) | (camera != query_camera[query])]
        right = identity == query_identity[query]
        number = right.sum()
        if number == 0:
            continue
        if cmc == "identity":
            _, best = np.unique(identity, return_index=True)
            first[query] = 1 + np.argmax(right[np.sort(best)])
        else:
            first[query] = 1 + np.argmax(right)
        precision = right.cumsum() / (np.arange(len(right)) + 1.0)
        average_precision[query] = (precision * right).sum() / number
        inverse_negative_penalty[query] = number / (np.flatnonzero(right)[-1] + 1.0)
    return first, average_precision, inverse_negative_penalty


def score_trials(query, gallery_of, trials, removal="none", cmc="image", kind="stable"):
    """Score trials one by one, a distance matrix each: mean over trials of CMC (first 20), mAP and mINP."""
    results = []
    query_embedding, query_identity, query_camera = query
    for gallery in trials:
        embedding, identity, camera = (part[gallery] for part in gallery_of)
        distance = -np.matmul(query_embedding, embedding.T)
        first, average_precision, inverse_negative_penalty = score_queries(
            distance, query_identity, identity, query_camera, camera, removal, cmc, kind
        )
        matched = first > 0
        curve = (first[matched, None] <= np.arange(1, 21)).mean(axis=0)
        results.append((curve, average_precision[matched].mean(), inverse_negative_penalty[matched].mean()))
    return tuple(np.mean([result[part] for result in results], axis=0) for part in range(3))
