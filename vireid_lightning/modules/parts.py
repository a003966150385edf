"""Part-aware parsing and pixel classification: a body part for every pixel, learnt from identities alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_sizes, check_whole
from vireid_lightning.modules.modality_rows import ModalityRows
from vireid_lightning.modules.neck import BNNeck
from vireid_lightning.modules.pooling import GeM
from vireid_lightning.precision import widen


def require_part_rows(height: int, parts: int, strides: Sequence[int] = (4, 16)) -> None:
    """Check that the parts divide the rows of an image's maps.

    Args:
        height: Height of the image in pixels.
        parts: Number of parts.
        strides: Strides of the maps, which have ``height / stride`` rows each, rounded up.

    Raises:
        VIReIDError: If the parts do not divide the rows of a map; names the nearest heights that fit.
    """
    check_sizes(height=height, parts=parts)
    check_whole("strides", strides)
    rows = [-(-height // stride) for stride in strides]
    if any(count % parts for count in rows):
        unit = parts * max(strides)
        below = max(height // unit, 1) * unit
        raise VIReIDError(
            f"An image height of {height} gives maps of {' and '.join(map(str, rows))} rows, which {parts} parts do "
            f"not divide; set image_size to a height that is a multiple of {unit}, such as {below} or {below + unit}."
        )


def cut_parts(maps: Tensor, parts: int) -> Tensor:
    """Return a view of maps (B, C, H, W) as equal horizontal stripes (B, parts, C, H / parts, W), top first."""
    stripes: Tensor = maps.unflatten(2, (parts, -1))
    return stripes.transpose(1, 2)


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask (B, H, W) by nearest neighbour, which takes pixel (4u, 4v) for (u, v) of a quarter of the size."""
    check_whole("size", size, length=2)
    rows, columns = (
        torch.arange(new, device=mask.device) * old // new for new, old in zip(size, mask.shape[1:], strict=True)
    )
    return mask[:, rows[:, None], columns]


class PartAwareParsing(nn.Module):
    """Finds body parts by class activation maps (Sun et al., ACM MM 2022, section 3.2).

    The last map is cut into stripes of equal height, each pooled by GeM (p = 3). A neck and a classifier on the
    concatenation learn the identities, and the classifier's weights tell which pixels of a stripe speak for one.

    Args:
        channels: Number of channels of the last map.
        num_classes: Number of training identities.
        parts: Number of parts, one for each stripe.
        signed: Whether the last map holds values below 0.
    """

    def __init__(self, channels: int, num_classes: int, parts: int = 6, *, signed: bool = False) -> None:
        super().__init__()
        check_sizes(channels=channels, num_classes=num_classes, parts=parts)
        self.parts = parts
        self.pool = GeM(signed=signed)
        self.neck = BNNeck(parts * channels)
        self.classifier = nn.Linear(parts * channels, num_classes, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the part classifier's logits (B, num_classes) of maps (B, C, H, W); no gradient reaches the maps."""
        stripes = cut_parts(maps.detach(), self.parts)
        pooled = self.pool(stripes.flatten(0, 1)).view(len(maps), -1)
        logits: Tensor = self.classifier(self.neck(pooled))
        return logits

    @torch.no_grad()
    def activation_mask(self, maps: Tensor, predicted: Tensor, size: tuple[int, int], erased: Tensor) -> Tensor:
        """Label pixels by the class activation maps of the predicted identities.

        Args:
            maps: (B, C, H, W), the last maps of the backbone.
            predicted: (B,) int64, the class that the global classifier predicts for each image.
            size: Height and width of the mask; ``parts`` must divide the height.
            erased: (B, *size) bool, erased pixels, which become background.

        Returns:
            (B, *size) int64: the part, from 1, of a pixel above its stripe's mean activation, 0 for any other pixel.
        """
        with torch.autocast(maps.device.type, enabled=False):
            weights = widen(self.classifier.weight)[predicted].unflatten(1, (self.parts, -1))
            activation = torch.einsum("bpc,bpchw->bphw", weights, cut_parts(widen(maps), self.parts))
            # Each stripe is resized on its own, so that nothing leaks over its edge.
            activation = F.interpolate(activation, (size[0] // self.parts, size[1]), mode="bilinear")
            above = activation > activation.mean(dim=(2, 3), keepdim=True)
        labels = above * torch.arange(1, self.parts + 1, device=maps.device).view(-1, 1, 1)
        return labels.flatten(1, 2).masked_fill(erased, 0)


class PixelClassifiers(nn.Module):
    """Classifies pixels as background or foreground and by part, with one linear classifier for each modality.

    The classifiers act on the maps of all stages, resized to one size and stacked. A linear classifier commutes with
    resizing, so each map is classified at its own size and only the few logits are resized: the same result without
    the stack.

    Args:
        channels: Number of channels of each map, in order.
        parts: Number of parts, besides background and foreground.
    """

    def __init__(self, channels: Sequence[int], parts: int = 6) -> None:
        super().__init__()
        check_whole("channels", channels)
        check_sizes(parts=parts)
        self.channels = list(channels)
        self.visible = nn.Linear(sum(channels), 2 + parts, bias=False)
        self.infrared = nn.Linear(sum(channels), 2 + parts, bias=False)

    def forward(self, maps: Sequence[Tensor], rows: ModalityRows, size: tuple[int, int]) -> Tensor:
        """Return logits (B, 2 + parts, *size) float32; no gradient reaches the maps.

        Args:
            maps: The maps of all stages; map i is (B, ``channels[i]``, height, width).
            rows: Rows of the batch that hold each modality.
            size: Height and width to which every map is resized, bilinearly.
        """
        outputs = []
        halves = zip(*(rows.split(x.detach()) for x in maps), strict=True)
        for classifier, selected in zip((self.visible, self.infrared), halves, strict=True):
            weights = classifier.weight[:, :, None, None].split(self.channels, dim=1)
            logits = (widen(F.conv2d(x, w)) for x, w in zip(selected, weights, strict=True))
            outputs.append(functools.reduce(torch.add, (F.interpolate(x, size, mode="bilinear") for x in logits)))
        merged = torch.cat(outputs)
        return merged if rows.restore is None else merged[rows.restore]


@torch.no_grad()
def predicted_mask(logits: Tensor, erased: Tensor) -> Tensor:
    """Return the mask (B, H, W) int64 that pixel logits (B, 2 + parts, H, W) predict: 0, or a part from 1.

    Args:
        logits: Background and foreground first, then the parts.
        erased: (B, H, W) bool, erased pixels, which are background whatever their logits.
    """
    return (logits[:, :2].argmax(1) * (logits[:, 2:].argmax(1) + 1)).masked_fill(erased, 0)


@torch.no_grad()
def rectify_parts(mask: Tensor, maps: Tensor, parts: int = 6) -> Tensor:
    """Move each foreground pixel to the part that it resembles most (Sun et al., ACM MM 2022, section 3.3).

    A part's prototype is the mean feature of its pixels in the image. A pixel moves to the prototype with the largest
    cosine among the part of its own stripe and the two neighbouring parts; where none of the three has a pixel, it
    stays. Background stays background.

    Args:
        mask: (B, H, W) int64, 0 for background or a part from 1; ``parts`` must divide H.
        maps: (B, C, H, W), the features that are compared.
        parts: Number of parts.

    Returns:
        The rectified mask (B, H, W) int64.
    """
    check_sizes(parts=parts)
    with torch.autocast(maps.device.type, enabled=False):
        features = widen(maps).flatten(2)
        members = F.one_hot(mask.flatten(1), parts + 1)[:, :, 1:].to(features.dtype)
        # The cosine ignores the length of a prototype, so the sum serves as well as the mean.
        prototypes = F.normalize(torch.bmm(features, members), dim=1)
        similarity = torch.bmm(prototypes.transpose(1, 2), F.normalize(features, dim=1)).unflatten(2, mask.shape[1:])
    part = torch.arange(parts, device=mask.device)
    stripe = torch.arange(mask.shape[1], device=mask.device) * parts // mask.shape[1]
    near = (part[:, None] - stripe).abs() <= 1
    allowed = near[None, :, :, None] & (members.sum(1) > 0)[:, :, None, None]
    best = similarity.masked_fill(~allowed, -torch.inf).argmax(1) + 1
    return torch.where((mask > 0) & allowed.any(1), best, mask)
