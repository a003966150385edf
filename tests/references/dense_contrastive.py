"""The dense contrastive loss as one writes it down: (pairs, HW, HW) tensors and autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def dense_contrastive_reference(visible, infrared, visible_mask, infrared_mask, temperature=0.05):
    """Holds the whole matrix of every pair several times over."""
    visible = F.normalize(visible.flatten(2), dim=1)
    infrared = F.normalize(infrared.flatten(2), dim=1)
    exponentials = torch.exp(torch.bmm(visible.transpose(1, 2), infrared) / temperature)
    visible_mask, infrared_mask = visible_mask.flatten(1), infrared_mask.flatten(1)
    same = visible_mask[:, :, None] == infrared_mask[:, None, :]
    positives = exponentials * same
    terms = []
    for dim, mask in ((2, visible_mask), (1, infrared_mask)):
        counted = (mask > 0) & same.any(dim)
        terms.append(exponentials.sum(dim)[counted].log() - positives.sum(dim)[counted].log())
    terms = torch.cat(terms)
    return terms.mean() if len(terms) else (visible.sum() + infrared.sum()) * 0
