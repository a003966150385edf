"""Where the images of each modality are in a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import INFRARED, VISIBLE, read_values


class ModalityRows(NamedTuple):
    """Where a batch's visible and infrared images are.

    Attributes:
        visible: Rows of the visible images, a slice where they come first.
        infrared: Rows of the infrared images.
        counts: Number of visible and of infrared images.
        restore: Brings visible-then-infrared rows back into the batch's order; None where they are in it.
    """

    visible: slice | Tensor
    infrared: slice | Tensor
    counts: tuple[int, int]
    restore: Tensor | None

    @classmethod
    def of(cls, modality: Tensor) -> ModalityRows:
        """Return the rows of a (B,) tensor of modalities.

        A batch of the datamodule has its modalities noted; reading those of any other tensor waits for the device.

        Raises:
            VIReIDError: If a value is neither 0 nor 1.
        """
        labels = read_values(modality)
        count = labels.count(VISIBLE)
        if count + labels.count(INFRARED) != len(labels):
            wrong = next(label for label in labels if label not in (VISIBLE, INFRARED))
            raise VIReIDError(f"A batch holds the modality {wrong}; it must be 0 (visible) or 1 (infrared).")
        counts = (count, len(labels) - count)
        if all(label == VISIBLE for label in labels[:count]):
            return cls(slice(0, count), slice(count, None), counts, None)
        order = torch.argsort(modality, stable=True)
        return cls(order[:count], order[count:], counts, torch.argsort(order))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the visible and the infrared rows of a tensor (B, ...)."""
        if isinstance(self.visible, slice):
            visible, infrared = x.split(self.counts)  # gradients of both halves are joined by one copy
            return visible, infrared
        return x[self.visible], x[self.infrared]

    def share(self, number: int, passes: int) -> tuple[Tensor | slice, Tensor | slice, ModalityRows]:
        """Return the rows that one of several passes over a batch sees: equal parts of both modalities, in order.

        So each normalises over both, and images of one identity, which stand side by side, stay together.

        Args:
            number: Which pass, from 0.
            passes: Number of passes.

        Returns:
            Rows of visible and of infrared images in the batch, and where these are in the pass, visible ones first.
        """
        bounds = [(count * number // passes, count * (number + 1) // passes) for count in self.counts]
        chosen: list[Tensor | slice] = []
        for rows, (first, last), start in zip((self.visible, self.infrared), bounds, (0, self.counts[0])):
            chosen.append(rows[first:last] if isinstance(rows, Tensor) else slice(start + first, start + last))
        count, infrared = (last - first for first, last in bounds)
        return chosen[0], chosen[1], ModalityRows(slice(0, count), slice(count, None), (count, infrared), None)
