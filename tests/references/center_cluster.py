"""The center cluster loss, image by image and pair by pair."""

from __future__ import annotations

import torch


def center_cluster(embeddings: torch.Tensor, identity: torch.Tensor, margin: float) -> torch.Tensor:
    centres = {}
    for label in identity.tolist():
        rows = [embeddings[i] for i in range(len(identity)) if identity[i] == label]
        centres[label] = sum(rows) / len(rows)
    first = sum(
        (embeddings[i] - centres[identity[i].item()]).square().sum().sqrt() for i in range(len(identity))
    ) / len(identity)
    second = embeddings.new_zeros(())
    for a in centres:
        others = [b for b in centres if b != a]
        if others:
            hinges = [torch.clamp(margin - (centres[a] - centres[b]).square().sum().sqrt(), min=0) for b in others]
            second = second + sum(hinges) / len(others) / len(centres)
    return first + second
