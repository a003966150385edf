"""The network under every method: a timm network or a user's own, its first parts per modality if wanted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.modules.high_resolution import build_high_resolution
from vireid_lightning.modules.modality_rows import ModalityRows
from vireid_lightning.modules.own_network import build_own, import_path
from vireid_lightning.modules.passes import recompute, run_in_passes
from vireid_lightning.modules.plain_transformer import (
    TRANSFORMER_FAMILIES,
    PatchEmbedding,
    PositionEmbedding,
    TransformerPart,
    build_transformer,
)
from vireid_lightning.modules.timm_creation import find_family
from vireid_lightning.modules.timm_stages import build_stages
from vireid_lightning.modules.trunk import BackboneSettings, Carried, Trunk
from vireid_lightning.modules.weights_files import find_weights
from vireid_lightning.types import INFRARED


class PerModality(nn.Module):
    """Two copies of a part of the network, one for each modality, which start from the same weights."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.visible = part
        self.infrared = copy.deepcopy(part)

    def forward(self, x: Tensor, rows: ModalityRows | Tensor) -> Tensor:
        """Send each image of ``x`` (B, C, H, W) through its modality's copy; the batch keeps its order.

        Args:
            x: The maps.
            rows: The rows of each modality; or (B,) bool, True for infrared, and both copies then see all images, of
                which each keeps its own: a graph that holds for every batch.
        """
        if isinstance(rows, Tensor):
            return torch.where(rows[:, None, None, None], self.infrared(x), self.visible(x))
        outputs = []  # slices, not a split, whose views a network that begins in place could not change
        if rows.counts[0]:
            outputs.append(self.visible(x[rows.visible]))
        if rows.counts[1]:
            outputs.append(self.infrared(x[rows.infrared]))
        merged = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return merged if rows.restore is None else merged[rows.restore]


class Backbone(nn.Module):
    """A network as five parts: what comes before the first stage (its max-pooling included), and four stages.

    Two kinds of timm's networks are behind it, and a user's own. A four-stage network (ResNet, ConvNeXt, Swin, HRNet)
    gives maps at strides 4, 8, 16 and 32, the last one 16 without its stride. Of a plain vision transformer (ViT,
    DINOv2, EVA, the image towers of CLIP and SigLIP) the first part is the patch embedding and a stage is a quarter of
    the blocks; its maps are the patch tokens, all at the stride of the patches. Any image size is taken: position
    embeddings are resampled, and :meth:`fit` resamples them once and for all.

    Parameters are named ``stages.<part>.<timm's name>``, for a part that exists per modality
    ``stages.<part>.visible.<timm's name>`` and ``stages.<part>.infrared.<timm's name>``.

    Args:
        name: A timm model name, or the class of a network of one's own: built without arguments, its attribute
            ``stages`` an ``nn.ModuleList`` of five parts, each from the map before (the first from images) to a map.
        pretrained: Start from trained weights: those of the file ``weights``, else those that timm has for the name.
            With False nothing is read and the weights are random.
        weights: File with a state dict of the model, .safetensors or .pth, ``package:NAME`` for that of an installed
            package, or ``small``; see :func:`~vireid_lightning.modules.weights.read_weights`.
        last_stride: Stride of stage 4. With 1, the papers' choice, its map has the size of stage 3's; no dilation. None
            is that of ``settings``.
        two_stream_until: Number of parts that exist per modality: 0 one stream, 1 the stem or the patch embedding, 2
            the stem and stage 1... At most ``streams``.
        settings: How the network is built beyond its name, also as a dictionary.
        stage1_for: What needs stage 1's map at stride 4, as the beginning of a sentence; None needs nothing.

    Attributes:
        stages: The five parts. One is called as ``stages[i](x)``, one that exists per modality as
            ``stages[i](x, ModalityRows.of(modality))``.
        channels: Channels of the five maps that :meth:`features` returns.
        strides: Strides of the five maps in pixels.
        streams: Largest ``two_stream_until``: 5 for most four-stage networks, 1 for transformers and HRNet.
        signed: Whether the last map holds values below 0.
        token: ``class`` where the class token is the feature of an image, else ``pooled``.
        after: Modules applied behind a part, by its number as a string; see :meth:`insert_after`.
        images_per_pass: Images of a training batch that go through at a time; None takes all at once. See
            :func:`~vireid_lightning.modules.passes.run_in_passes`.
        recomputes_parts: Whether training keeps the parts' maps alone and computes the rest again in backward.

    Raises:
        VIReIDError: If timm has no such model, it is of no kind above, or its weights cannot be loaded.

    Example:
        >>> backbone = Backbone("resnet18", pretrained=False, two_stream_until=1)
        >>> maps = backbone.features(torch.zeros(4, 3, 64, 32), torch.tensor([0, 0, 1, 1]))
        >>> [tuple(part.shape[1:]) for part in maps]
        [(64, 16, 8), (64, 16, 8), (128, 8, 4), (256, 4, 2), (512, 4, 2)]
        >>> vit = Backbone("test_vit", pretrained=False).features(torch.zeros(1, 3, 64, 32), torch.tensor([0]))
        >>> [tuple(part.shape[1:]) for part in vit] == 5 * [(64, 4, 2)]
        True
    """

    def __init__(
        self,
        name: str | type[nn.Module] = "resnet50.tv_in1k",
        *,
        pretrained: bool = True,
        weights: str | None = None,
        last_stride: int | None = None,
        two_stream_until: int = 0,
        settings: BackboneSettings | dict[str, Any] = BackboneSettings(),
        stage1_for: str | None = None,
    ) -> None:
        super().__init__()
        check_number("two_stream_until", two_stream_until, 0, whole=True)
        settings = BackboneSettings.of(settings)
        if last_stride is not None:
            settings = replace(settings, last_stride=last_stride)
        self.name = name if isinstance(name, str) else import_path(name)
        trunk = build_trunk(name, settings, pretrained=pretrained, weights=weights)
        if stage1_for is not None and trunk.strides[1] != 4:
            raise VIReIDError(
                f"{stage1_for}, which must have a stride of 4; that of '{self.name}' has {trunk.strides[1]}. Choose a "
                "four-stage network, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224."
            )
        if two_stream_until > trunk.streams:
            raise VIReIDError(
                f"two_stream_until is {two_stream_until}; give 0 (one stream) to {trunk.streams} "
                f"({'all parts' if trunk.streams == len(trunk.parts) else f'all that {self.name} can have'} "
                "per modality)."
            )
        self.two_stream_until = two_stream_until
        self.channels, self.strides = trunk.channels, trunk.strides
        self.streams, self.signed, self.token = trunk.streams, trunk.signed, settings.token
        self.stages = nn.ModuleList(
            PerModality(part) if number < two_stream_until else part for number, part in enumerate(trunk.parts)
        )
        self.after = nn.ModuleDict()
        self.images_per_pass: int | None = None
        self.recomputes_parts = False
        self._compiled: Callable[..., tuple[list[Tensor], Tensor | None]] | None = None
        self.to(memory_format=torch.channels_last)

    def insert_after(self, stage: int, module: nn.Module) -> None:
        """Apply a module to the map of a part (0 stem, 1 to 4 stages) before the next part and in what is returned.

        Raises:
            VIReIDError: If there is no such part, or one module is already there.
        """
        if not 0 <= stage < len(self.stages) or str(stage) in self.after:
            raise VIReIDError(f"Nothing can be inserted after part {stage}: there is none, or it is already followed.")
        self.after[str(stage)] = module.to(memory_format=torch.channels_last)

    def require_maps(self, purpose: str) -> None:
        """Refuse the class token for a method that makes its feature of the last map; ``purpose`` says how."""
        if self.token == "class":
            raise VIReIDError(f"{purpose} and has no use for a class token; set backbone_settings.token: pooled.")

    def fit(self, image_size: tuple[int, int]) -> None:
        """Resample position embeddings to an image size; as that they are trained and saved from now on.

        Raises:
            VIReIDError: If the patches of a vision transformer do not fill the image.
        """
        first = self.stages[0].visible if isinstance(self.stages[0], PerModality) else self.stages[0]
        if isinstance(first, PatchEmbedding):
            for module in self.modules():
                if isinstance(module, PositionEmbedding):
                    module.fit(first.map_size(image_size))

    def map_rows(self, height: int) -> int:
        """Return the number of rows of the last map for a height of images in pixels."""
        first = self.stages[0].visible if isinstance(self.stages[0], PerModality) else self.stages[0]
        if isinstance(first, PatchEmbedding):
            return (height - first.proj.kernel_size[0]) // first.proj.stride[0] + 1
        return -(-height // self.strides[-1])

    def features(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Return the maps of the stem and of the four stages.

        Args:
            images: (B, 3, H, W) float.
            modality: (B,) int64, 0 visible, 1 infrared, in any order; one of them may be absent.

        Returns:
            Five tensors (B, ``channels[i]``, height, width) in the batch's order.
        """
        return self.features_and_token(images, modality)[0]

    def features_and_token(self, images: Tensor, modality: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return :meth:`features`, and the class token (B, C) where ``token`` is ``class``, else None."""
        learns = self.training and torch.is_grad_enabled()
        run = self._compiled if learns and self._compiled is not None else self._run
        if learns and self.images_per_pass is not None and len(images) > self.images_per_pass:
            return run_in_passes(self, run, images, ModalityRows.of(modality), self.images_per_pass)
        return run(images, self._route(modality) if self.two_stream_until else None)

    def _run(self, images: Tensor, rows: ModalityRows | Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        recomputes = self.recomputes_parts and self.training and torch.is_grad_enabled()
        x: Tensor | Carried = images.contiguous(memory_format=torch.channels_last)
        maps = []
        for number in range(len(self.stages)):
            x = recompute(self, self._run_part, number, x, rows) if recomputes else self._run_part(number, x, rows)
            maps.append(x.map if isinstance(x, Carried) else x)
        return maps, x.rest[0][:, 0] if self.token == "class" and isinstance(x, Carried) else None

    def _run_part(self, number: int, x: Tensor | Carried, rows: ModalityRows | Tensor | None) -> Tensor | Carried:
        """Return what a part, and what has been inserted after it, make of what comes from the part before."""
        stage = self.stages[number]
        x = stage(x, rows) if isinstance(stage, PerModality) else stage(x)
        if str(number) not in self.after:
            return x
        current: Tensor = self.after[str(number)](x.map if isinstance(x, Carried) else x)
        return Carried(current, x.rest) if isinstance(x, Carried) else current

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile the way through the parts, for training alone, by the arguments of :func:`torch.compile`.

        Names in the state dict stay as they are. A copy is not compiled.
        """
        self._compiled = torch.compile(self._run, *arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]  # torch's own types lack it
        return {**state, "_compiled": None}

    def _route(self, modality: Tensor) -> ModalityRows | Tensor:
        """Return what :class:`PerModality` needs; in eval mode, a graph that is traced depends on no modality's value.

        In training mode the normalisations must see their own modality alone.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # torch's own types lack it
        if not self.training and (torch.compiler.is_compiling() or tracing):
            return modality == INFRARED
        return ModalityRows.of(modality)

    def forward(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Return :meth:`features`."""
        return self.features(images, modality)

    def layer_numbers(self) -> tuple[dict[str, int], int]:
        """Return the layer of each parameter that timm's network has, counted from the images, and their number.

        The stem or patch embedding, with class token and positions, is layer 0; each stage or each block of a
        transformer is one more. What has been inserted, and a transformer's norm, is in none.
        """
        numbers: dict[str, int] = {}
        count = 1
        for part, stage in enumerate(self.stages):
            if isinstance(stage, TransformerPart):
                for name, _ in stage.named_parameters():
                    if name.startswith("embedding."):
                        numbers[f"stages.{part}.{name}"] = 0
                    elif name.startswith("blocks."):
                        numbers[f"stages.{part}.{name}"] = count + int(name.split(".")[1])
                count += len(stage.blocks)
            else:
                number = 0 if part == 0 else count
                numbers.update({f"stages.{part}.{name}": number for name, _ in stage.named_parameters()})
                count += part > 0
        return numbers, count


def build_trunk(
    name: str | type[nn.Module], settings: BackboneSettings, *, pretrained: bool, weights: str | None
) -> Trunk:
    """Build a network of whichever kind a name or a class is."""
    if not isinstance(name, str):
        return build_own(name, settings, pretrained=pretrained, weights=weights)
    family = find_family(name)
    if pretrained and weights is not None:
        find_weights(weights, name)  # before a network is built
    if family in TRANSFORMER_FAMILIES:
        return build_transformer(name, family, settings, pretrained=pretrained, weights=weights)
    if family == "hrnet":
        return build_high_resolution(name, settings, pretrained=pretrained, weights=weights)
    return build_stages(name, family, settings, pretrained=pretrained, weights=weights)
