"""Part-aware parsing and pixel classification of DCLNet: a body part for every pixel, learnt from identities alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.backbone import ModalityRows
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.pooling import GeM
from vireid_lightning.precision import widen


def require_part_rows(height: int, parts: int, strides: Sequence[int] = (4, 16)) -> None:
    """Check that the maps of an image of this height have rows that the parts divide.

    Raises:
        VIReIDError: If one has not; names the nearest heights whose maps have.
    """
    rows = [-(-height // stride) for stride in strides]
    if any(count % parts for count in rows):
        unit = parts * max(strides)
        below = max(height // unit, 1) * unit
        raise VIReIDError(
            f"An image height of {height} gives maps of {' and '.join(map(str, rows))} rows, which {parts} parts do "
            f"not divide; set image_size to a height that is a multiple of {unit}, such as {below} or {below + unit}."
        )


def cut_parts(maps: Tensor, parts: int) -> Tensor:
    """Return the view (B, parts, C, H / parts, W) of maps (B, C, H, W) as equal horizontal stripes, top first."""
    return maps.unflatten(2, (parts, -1)).transpose(1, 2)


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask (B, H, W) at another size by nearest neighbour: pixel (4u, 4v) for a quarter of the size."""
    rows, columns = (
        torch.arange(new, device=mask.device) * old // new for new, old in zip(size, mask.shape[1:], strict=True)
    )
    return mask[:, rows[:, None], columns]


class PartAwareParsing(nn.Module):
    """Parts from class activation maps (Sun et al., ACM MM 2022, section 3.2).

    The last map is cut into stripes of equal height, each pooled by GeM (p = 3); a neck and a classifier on the
    concatenation learn the identities. The classifier's weights tell which pixels of a stripe speak for an identity.

    Args:
        channels: Channels of the last map.
        num_classes: Training identities.
        parts: Stripes.
    """

    def __init__(self, channels: int, num_classes: int, parts: int = 6) -> None:
        super().__init__()
        self.parts = parts
        self.pool = GeM()
        self.neck = BNNeck(parts * channels)
        self.classifier = nn.Linear(parts * channels, num_classes, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the part classifier's logits (B, num_classes) for maps (B, C, H, W); no gradient reaches the maps."""
        stripes = cut_parts(maps.detach(), self.parts)
        pooled = self.pool(stripes.flatten(0, 1)).view(len(maps), -1)
        return self.classifier(self.neck(pooled))

    @torch.no_grad()
    def activation_mask(self, maps: Tensor, predicted: Tensor, size: tuple[int, int], erased: Tensor) -> Tensor:
        """Label pixels by the class activation maps of the predicted identities.

        Args:
            maps: (B, C, H, W).
            predicted: (B,) class that the global classifier predicts.
            size: Height and width of the mask; ``parts`` divides the height.
            erased: (B, *size) bool; such pixels are background.

        Returns:
            (B, *size) int64: 1 to ``parts`` for a pixel above the mean of its stripe's activation, 0 for any other.
        """
        with torch.autocast(maps.device.type, enabled=False):
            weights = widen(self.classifier.weight)[predicted].unflatten(1, (self.parts, -1))
            activation = torch.einsum("bpc,bpchw->bphw", weights, cut_parts(widen(maps), self.parts))
            # Each stripe is resized on its own: nothing of a neighbour leaks over its edge.
            activation = F.interpolate(activation, (size[0] // self.parts, size[1]), mode="bilinear")
            above = activation > activation.mean(dim=(2, 3), keepdim=True)
        labels = above * torch.arange(1, self.parts + 1, device=maps.device).view(-1, 1, 1)
        return labels.flatten(1, 2).masked_fill(erased, 0)


class PixelClassifiers(nn.Module):
    """One linear classifier a modality over the stacked maps of all stages: background, foreground and the parts.

    The maps would be resized to one size and stacked; a linear classifier commutes with resizing, so each map is
    classified at its own size and only the few logits are resized. The result is the same, the stack never exists.

    Args:
        channels: Channels of the maps, in order.
        parts: Parts beside background and foreground.
    """

    def __init__(self, channels: Sequence[int], parts: int = 6) -> None:
        super().__init__()
        self.channels = list(channels)
        self.visible = nn.Linear(sum(channels), 2 + parts, bias=False)
        self.infrared = nn.Linear(sum(channels), 2 + parts, bias=False)

    def forward(self, maps: Sequence[Tensor], rows: ModalityRows, size: tuple[int, int]) -> Tensor:
        """Return logits (B, 2 + parts, *size) float32; no gradient reaches the maps.

        Args:
            maps: The maps of all stages, (B, ``channels[i]``, height, width) each.
            rows: Which images are of which modality.
            size: Height and width that every map is resized to, bilinearly.
        """
        outputs = []
        for classifier, selected in ((self.visible, rows.visible), (self.infrared, rows.infrared)):
            weights = classifier.weight[:, :, None, None].split(self.channels, dim=1)
            logits = (widen(F.conv2d(x.detach()[selected], w)) for x, w in zip(maps, weights, strict=True))
            outputs.append(sum(F.interpolate(x, size, mode="bilinear") for x in logits))
        merged = torch.cat(outputs)
        return merged if rows.restore is None else merged[rows.restore]


@torch.no_grad()
def predicted_mask(logits: Tensor, erased: Tensor) -> Tensor:
    """Return the mask (B, H, W) int64 that pixel logits (B, 2 + parts, H, W) predict: 0, or a part from 1.

    ``erased`` (B, H, W) bool marks pixels that are background whatever their logits.
    """
    return (logits[:, :2].argmax(1) * (logits[:, 2:].argmax(1) + 1)).masked_fill(erased, 0)


@torch.no_grad()
def rectify_parts(mask: Tensor, maps: Tensor, parts: int = 6) -> Tensor:
    """Semantic rectification: move each foreground pixel to the part that it resembles (Sun et al., section 3.3).

    Within an image, a part's prototype is the mean feature of its pixels. A pixel goes to the prototype of largest
    cosine among the part of its own stripe and the two neighbouring ones; where none of these has a pixel it stays.
    Background stays background.

    Args:
        mask: (B, H, W) int64, 0 or a part from 1; ``parts`` divides H.
        maps: (B, C, H, W) features.
        parts: Number of parts.

    Returns:
        (B, H, W) int64.
    """
    with torch.autocast(maps.device.type, enabled=False):
        features = widen(maps).flatten(2)
        members = F.one_hot(mask.flatten(1), parts + 1)[:, :, 1:].to(features.dtype)
        # The cosine does not see the length of a prototype, so the sum does for the mean.
        prototypes = F.normalize(torch.bmm(features, members), dim=1)
        similarity = torch.bmm(prototypes.transpose(1, 2), F.normalize(features, dim=1)).unflatten(2, mask.shape[1:])
    part = torch.arange(parts, device=mask.device)
    stripe = torch.arange(mask.shape[1], device=mask.device) * parts // mask.shape[1]
    near = (part[:, None] - stripe).abs() <= 1
    allowed = near[None, :, :, None] & (members.sum(1) > 0)[:, :, None, None]
    best = similarity.masked_fill(~allowed, -torch.inf).argmax(1) + 1
    return torch.where((mask > 0) & allowed.any(1), best, mask)
