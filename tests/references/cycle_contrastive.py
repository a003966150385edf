"""The part-aware cycle-contrastive loss as one writes it down: a loop over queries, one retrieval at a time."""

from __future__ import annotations

import torch


def _retrieve(query, candidates, temperature):
    weights = [torch.exp(torch.dot(query, candidate) / temperature) for candidate in candidates]
    retrieved = sum(weight * candidate for weight, candidate in zip(weights, candidates)) / sum(weights)
    return retrieved / retrieved.norm()


def cycle_contrastive_reference(visible_parts, infrared_parts, temperature=0.07):
    """Give float64 for a reference that is exact to about 1e-12."""
    modalities = [[part / part.norm() for part in parts] for parts in (visible_parts, infrared_parts)]
    pairs = []
    for own, parts in enumerate(modalities):
        for number, query in enumerate(parts):
            retrieved = []
            for modality, candidates in enumerate(modalities):
                others = [u for k, u in enumerate(candidates) if (modality, k) != (own, number)]
                retrieved.append(_retrieve(query, others, temperature) if others else None)
            if retrieved[0] is not None and retrieved[1] is not None:
                pairs.append(retrieved)
    if len(pairs) < 2:
        return (visible_parts.sum() + infrared_parts.sum()) * 0
    terms = []
    for visible, infrared in pairs:
        for anchor, positive, side in ((visible, infrared, 1), (infrared, visible, 0)):
            everything = sum(torch.exp(torch.dot(anchor, pair[side]) / temperature) for pair in pairs)
            terms.append(-torch.log(torch.exp(torch.dot(anchor, positive) / temperature) / everything))
    return torch.stack(terms).mean()


def cycle_return_reference(visible_parts, infrared_parts, temperature=0.07):
    """The cycle out and back, one part at a time."""
    modalities = [[part / part.norm() for part in parts] for parts in (visible_parts, infrared_parts)]
    if not all(modalities):
        return (visible_parts.sum() + infrared_parts.sum()) * 0
    terms = []
    for own, other in (modalities, modalities[::-1]):
        for query in own:
            returned = _retrieve(_retrieve(query, other, temperature), own, temperature)
            everything = sum(torch.exp(torch.dot(returned, part) / temperature) for part in own)
            terms.append(-torch.log(torch.exp(torch.dot(returned, query) / temperature) / everything))
    return torch.stack(terms).mean()
