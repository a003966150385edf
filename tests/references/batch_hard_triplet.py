"""The batch-hard triplet loss, anchor by anchor."""

from __future__ import annotations

import torch


def batch_hard_triplet(embeddings: torch.Tensor, identity: torch.Tensor, margin: float) -> torch.Tensor:
    total = embeddings.new_zeros(())
    for a in range(len(identity)):
        positives, negatives = [embeddings.new_zeros(())], []
        for b in range(len(identity)):
            if a != b:
                distance = (embeddings[a] - embeddings[b]).square().sum().sqrt()
                (positives if identity[a] == identity[b] else negatives).append(distance)
        if negatives:
            total = total + torch.clamp(margin + max(positives) - min(negatives), min=0)
    return total / len(identity)
