"""What a stripe-shuffling pre-training has learned, on held-out images and without labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from vireid_lightning.types import MODALITIES

_QUERIES_AT_ONCE = 4096  # rows of the similarity matrix that exist at a time


class StripeRecovery(Metric):
    """Permutation accuracy, part retrieval and feature spread over a set of images.

    :meth:`compute` returns, where the images allow it:

    - ``permutation_accuracy``, ``permutation_accuracy_visible``, ``permutation_accuracy_infrared``: share of images
      whose order is recovered entirely.
    - ``stripe_match``, ``stripe_match_visible``, ``stripe_match_infrared``: share of parts (of the modality named)
      whose nearest part in the other modality is of the same stripe. Chance is 1 / d.
    - ``stripe_return``, ``stripe_return_visible``, ``stripe_return_infrared``: share of parts for which the part of
      their own modality that is nearest to that nearest part is of the same stripe. Chance is 1 / d.
    - ``feature_spread``: 1 - ||mean of the L2-normalised embeddings||^2, their variance: 0 if all are the same, as
      after a collapse.

    States of several processes are gathered; each image must reach exactly one of them.
    """

    full_state_update = False
    higher_is_better = True

    recovered: Tensor
    ordered: Tensor
    images: Tensor
    embedding_sums: list[Tensor]
    parts: list[Tensor]
    stripes: list[Tensor]
    modalities: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("recovered", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("ordered", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("embedding_sums", "parts", "stripes", "modalities"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        embedding: Tensor,
        modality: Tensor,
        order: Tensor,
        recovered: Tensor | None = None,
        parts: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            embedding: (B, D), L2-normalised.
            modality: (B,) int64.
            order: (B, d) int64: the stripe that each place of the shuffled image shows.
            recovered: (B, d) int64, the order that the model found; None where it looks for none.
            parts: (B, d, E), L2-normalised features of the places; None where the model makes none.
        """
        self.images += len(modality)
        self.embedding_sums.append(embedding.double().sum(0, keepdim=True))
        if recovered is not None:
            correct = (recovered == order).all(1)
            self.recovered += torch.bincount(modality[correct], minlength=2)
            self.ordered += torch.bincount(modality, minlength=2)
        if parts is not None:
            self.parts.append(parts.flatten(0, 1).float())
            self.stripes.append(order.flatten())
            self.modalities.append(modality.repeat_interleave(order.shape[1]))

    def compute(self) -> dict[str, Tensor]:
        """Return the shares by name."""
        values: dict[str, Tensor] = {}
        if self.ordered.sum():
            values |= _shares("permutation_accuracy", self.recovered, self.ordered)
        if len(self.parts):
            values |= self._retrieve()
        if self.images:
            mean = _whole(self.embedding_sums).sum(0) / self.images
            values["feature_spread"] = (1 - mean.square().sum()).float()
        return values

    def _retrieve(self) -> dict[str, Tensor]:
        parts, stripes, modality = (_whole(state) for state in (self.parts, self.stripes, self.modalities))
        rows = [(modality == number).nonzero().squeeze(1) for number in range(2)]
        counts = torch.tensor([len(found) for found in rows], device=modality.device)
        if not counts.all():
            return {}
        matched, returned = torch.zeros_like(counts), torch.zeros_like(counts)
        nearest = [rows[1][_nearest(parts[rows[0]], parts[rows[1]])], rows[0][_nearest(parts[rows[1]], parts[rows[0]])]]
        there = torch.empty_like(modality)
        for own, found in zip(rows, nearest):
            there[own] = found
        for number, own in enumerate(rows):
            matched[number] = int((stripes[there[own]] == stripes[own]).sum())
            returned[number] = int((stripes[there[there[own]]] == stripes[own]).sum())
        return _shares("stripe_match", matched, counts) | _shares("stripe_return", returned, counts)


def _whole(state: Tensor | list[Tensor]) -> Tensor:
    """Return a list state in one piece, which it is after a synchronisation."""
    return state if isinstance(state, Tensor) else torch.cat(state)


def _shares(name: str, hits: Tensor, counts: Tensor) -> dict[str, Tensor]:
    by_modality = {
        f"{name}_{modality}": hits[number] / counts[number]
        for number, modality in enumerate(MODALITIES)
        if counts[number]
    }
    return {name: hits.sum() / counts.sum(), **by_modality}


def _nearest(queries: Tensor, candidates: Tensor) -> Tensor:
    return torch.cat([(chunk @ candidates.t()).argmax(1) for chunk in queries.split(_QUERIES_AT_ONCE)])
