"""The convolutional network under every method: any four-stage timm CNN, its first parts per modality if wanted."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.timm_stages import build_stages
from vireid_lightning.types import INFRARED, VISIBLE


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
        """Return the rows of a (B,) tensor of modalities. Waits for the device once.

        Raises:
            VIReIDError: If a value is neither 0 nor 1.
        """
        labels = modality.tolist()
        count = labels.count(VISIBLE)
        if count + labels.count(INFRARED) != len(labels):
            wrong = next(label for label in labels if label not in (VISIBLE, INFRARED))
            raise VIReIDError(f"A batch holds the modality {wrong}; it must be 0 (visible) or 1 (infrared).")
        counts = (count, len(labels) - count)
        if all(label == VISIBLE for label in labels[:count]):
            return cls(slice(0, count), slice(count, None), counts, None)
        order = torch.argsort(modality, stable=True)
        return cls(order[:count], order[count:], counts, torch.argsort(order))


class PerModality(nn.Module):
    """Two copies of a part of the network, one for each modality, which start from the same weights."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.visible = part
        self.infrared = copy.deepcopy(part)

    def forward(self, x: Tensor, rows: ModalityRows) -> Tensor:
        """Send each image of ``x`` (B, C, H, W) through its modality's copy; the batch keeps its order."""
        outputs = []
        if rows.counts[0]:
            outputs.append(self.visible(x[rows.visible]))
        if rows.counts[1]:
            outputs.append(self.infrared(x[rows.infrared]))
        merged = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return merged if rows.restore is None else merged[rows.restore]


class Backbone(nn.Module):
    """A timm CNN as five parts: the stem (its max-pooling included) and four stages at strides 4, 8, 16 and 32.

    Parameters are named ``stages.<part>.<timm's name>``, for a part that exists per modality
    ``stages.<part>.visible.<timm's name>`` and ``stages.<part>.infrared.<timm's name>``.

    Args:
        name: A timm model with maps at strides 4, 8, 16 and 32: ResNet, RegNet, MobileNet, EfficientNet, ConvNeXt...
        pretrained: Start from trained weights: those of the file ``weights``, else those that timm has for the name.
            With False nothing is read and the weights are random.
        weights: File with a state dict of the model, .safetensors or .pth, ``package:NAME`` for that of an installed
            package, or ``small``; see :func:`~vireid_lightning.modules.weights.read_weights`.
        last_stride: Stride of stage 4. With 1, the papers' choice, its map has the size of stage 3's; no dilation.
        two_stream_until: Number of parts that exist per modality: 0 one stream, 1 the stem, 2 the stem and stage 1...

    Attributes:
        stages: The five parts. One is called as ``stages[i](x)``, one that exists per modality as
            ``stages[i](x, ModalityRows.of(modality))``.
        channels: Channels of the five maps that :meth:`features` returns.
        after: Modules applied behind a part, by its number as a string; see :meth:`insert_after`.

    Raises:
        VIReIDError: If timm has no such model, it has no four stages, or its weights cannot be loaded.

    Example:
        >>> backbone = Backbone("resnet18", pretrained=False, two_stream_until=1)
        >>> maps = backbone.features(torch.zeros(4, 3, 64, 32), torch.tensor([0, 0, 1, 1]))
        >>> [tuple(part.shape[1:]) for part in maps]
        [(64, 16, 8), (64, 16, 8), (128, 8, 4), (256, 4, 2), (512, 4, 2)]
    """

    def __init__(
        self,
        name: str = "resnet50.tv_in1k",
        *,
        pretrained: bool = True,
        weights: str | None = None,
        last_stride: int = 1,
        two_stream_until: int = 0,
    ) -> None:
        super().__init__()
        parts, channels = build_stages(name, pretrained=pretrained, weights=weights, last_stride=last_stride)
        if not 0 <= two_stream_until <= len(parts):
            raise VIReIDError(
                f"two_stream_until is {two_stream_until}; give 0 (one stream) to {len(parts)} (all parts per modality)."
            )
        self.name = name
        self.two_stream_until = two_stream_until
        self.channels = channels
        self.stages = nn.ModuleList(
            PerModality(part) if number < two_stream_until else part for number, part in enumerate(parts)
        )
        self.after = nn.ModuleDict()
        self.to(memory_format=torch.channels_last)

    def insert_after(self, stage: int, module: nn.Module) -> None:
        """Apply a module to the map of a part (0 stem, 1 to 4 stages) before the next part and in what is returned.

        Raises:
            VIReIDError: If there is no such part, or one module is already there.
        """
        if not 0 <= stage < len(self.stages) or str(stage) in self.after:
            raise VIReIDError(f"Nothing can be inserted after part {stage}: there is none, or it is already followed.")
        self.after[str(stage)] = module.to(memory_format=torch.channels_last)

    def features(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Return the maps of the stem and of the four stages.

        Args:
            images: (B, 3, H, W) float.
            modality: (B,) int64, 0 visible, 1 infrared, in any order; one of them may be absent.

        Returns:
            Five tensors (B, ``channels[i]``, height, width) in the batch's order.
        """
        rows = ModalityRows.of(modality) if self.two_stream_until else None
        x = images.contiguous(memory_format=torch.channels_last)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x, rows) if isinstance(stage, PerModality) else stage(x)
            if str(number) in self.after:
                x = self.after[str(number)](x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Return :meth:`features`."""
        return self.features(images, modality)
