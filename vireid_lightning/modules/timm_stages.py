"""A timm network cut into its stem and four stages, with its last stride removed and its weights loaded."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import Any

import torch
from timm.layers.format import Format
from timm.models import FeatureDictNet
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.last_stride import remove_stride
from vireid_lightning.modules.timm_creation import create, create_pretrained
from vireid_lightning.modules.trunk import PARTS, BackboneSettings, Carried, Trunk

STAGE_STRIDES = [4, 8, 16, 32]

#: timm's modules whose stems make maps (B, H, W, C), where all else makes maps (B, C, H, W).
_CHANNELS_LAST_STEMS = ("pvt_v2",)

#: Arguments that let networks with windows take any image size, by timm's module.
_ANY_SIZE: dict[str, dict[str, Any]] = {
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "swin_transformer_v2_cr": {"strict_img_size": False},
}

# The maps of stages 3 and 4, 6 x 5 and 3 x 3, have odd sides, so that a kernel that keeps only even sizes is found out.
_PROBE = (96, 80)


class ChannelsLastStage(nn.Sequential):
    """Modules of maps (B, H, W, C) as a stage of maps (B, C, H, W); no value is copied."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, C, H, W) behind the modules."""
        result: Tensor = super().forward(x.permute(0, 2, 3, 1))  # type: ignore[no-untyped-call]
        return result.permute(0, 3, 1, 2)


class FromChannelsLast(nn.Sequential):
    """Modules that make a map (B, C, H, W) of a map (B, H, W, C), as a stage of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, C, H, W) behind the modules."""
        result: Tensor = super().forward(x.permute(0, 2, 3, 1))  # type: ignore[no-untyped-call]
        return result


class ChannelsLastStem(nn.Sequential):
    """Modules that make maps (B, H, W, C) of images (B, 3, H, W), as a part that returns (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, C, H, W) of images."""
        result: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return result.permute(0, 3, 1, 2)


def build_stages(name: str, family: str, settings: BackboneSettings, *, pretrained: bool, weights: str | None) -> Trunk:
    """Build the stem, with its max-pooling, and the four stages of a timm network.

    The parts keep timm's names of their modules: ``parts[1]`` of a ResNet has the parameters ``layer1.0...``.

    Args:
        name: A timm model name, with or without a tag of pretrained weights.
        family: The module of timm that defines the model.
        settings: With ``last_stride`` 1, the last stage's convolutions, poolings and mergings of stride 2 get stride 1,
            and nothing is dilated.
        pretrained: Load pretrained weights, from ``weights`` or, where that is None, those of the name's tag.
        weights: Local file with a timm state dict of the model.

    Raises:
        VIReIDError: If the model has no maps at strides 4, 8, 16 and 32, its last stride cannot be removed, or the
            weights cannot be loaded.
    """
    settings.require_defaults(name, "a four-stage network", "token", "patch_stride")
    arguments = {"features_only": True, "drop_path": settings.drop_path, **_ANY_SIZE.get(family, {})}
    # The structure is checked before any weights are read or downloaded.
    network, arguments = _create(name, arguments)
    trunk = _assemble(network, name, family, settings.last_stride)
    if pretrained:
        trunk = _assemble(create_pretrained(name, weights, **arguments), name, family, settings.last_stride)
    return trunk


def _create(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Create timm's network up to its last stage, as an ordered dictionary of its children where timm can.

    Returns:
        The network, and the arguments that gave it.
    """
    try:
        network = create(name, **arguments)
        if not isinstance(network, FeatureDictNet):
            # MobileNets and EfficientNets come as a class of their own unless a list is asked for.
            arguments = arguments | {"feature_cfg": {"feature_cls": "list", "flatten_sequential": True}}
            network = create(name, **arguments)
    except VIReIDError:
        raise
    except (RuntimeError, TypeError, AssertionError, AttributeError, ValueError) as error:
        raise VIReIDError(explain_kinds(name)) from error
    return network, arguments


def _assemble(network: nn.Module, name: str, family: str, last_stride: int) -> Trunk:
    stages = _cut(network, name, family)
    if last_stride == 1:
        remove_stride(stages[-1])
    return check_maps(stages, name, last_stride)


def _cut(network: nn.Module, name: str, family: str) -> list[nn.Module]:
    """Cut the network behind the modules whose maps timm returns at strides 4, 8, 16 and 32."""
    if not isinstance(network, FeatureDictNet) or network.feature_info.reduction()[-4:] != STAGE_STRIDES:
        raise VIReIDError(explain_kinds(name))
    children = list(network.items())
    ends = [[child for child, _ in children].index(last) + 1 for last in network.return_layers][-PARTS:]
    if len(ends) == PARTS:
        stem_end = ends[0]
        while stem_end < ends[1] - 1 and _is_pooling(children[stem_end][1]):
            stem_end += 1
    else:
        # timm returns no map before the first stage, so the stem is all that comes before that stage's last module.
        stem_end = ends[0] - 1
    bounds = [0, stem_end, *ends[-4:]]
    pieces = [OrderedDict(children[start:end]) for start, end in itertools.pairwise(bounds)]
    if family in _CHANNELS_LAST_STEMS:
        first, second, *others = pieces
        return [ChannelsLastStem(first), FromChannelsLast(second), *(nn.Sequential(piece) for piece in others)]
    if network.output_fmt != Format.NHWC:
        return [nn.Sequential(piece) for piece in pieces]
    return [ChannelsLastStem(pieces[0]), *(ChannelsLastStage(piece) for piece in pieces[1:])]


def _is_pooling(module: nn.Module) -> bool:
    pools = any(isinstance(part, nn.MaxPool2d | nn.AvgPool2d) for part in module.modules())
    return pools and next(module.parameters(), None) is None


@torch.no_grad()
def check_maps(
    stages: list[nn.Module], name: str, last_stride: int, streams: int = PARTS, size: tuple[int, int] = _PROBE
) -> Trunk:
    """Run a small image through the stages, check the maps' sizes, and return the stages with what they turned out.

    A stage that begins with an in-place activation would overwrite the map of the stage before, so the network's
    activations are then made ordinary ones.
    """
    training = [stage.training for stage in stages]
    # Some pattern: signed features of a plain image may all be 0.
    x: Any = torch.linspace(-20, 20, 3 * math.prod(size)).sin().view(1, 3, *size)
    maps: list[Tensor] = []
    versions = []
    for stage in stages:
        try:
            x = stage.eval()(x)
        except (RuntimeError, AssertionError, AttributeError, TypeError, IndexError) as error:
            raise VIReIDError(f"{explain_kinds(name)} (A small image failed: {error})") from error
        found = x.map if isinstance(x, Carried) else x
        if not isinstance(found, Tensor) or found.ndim != 4:
            raise VIReIDError(explain_kinds(name))
        maps.append(found)
        versions.append(found._version)
    for stage, mode in zip(stages, training, strict=True):
        stage.train(mode)
    if [part._version for part in maps] != versions:
        for module in nn.ModuleList(stages).modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # torch types every attribute as Tensor | Module
    expected = [tuple(-(-side // stride) for side in size) for stride in STAGE_STRIDES]
    sizes = [tuple(part.shape[2:]) for part in maps[1:]]
    if sizes[:3] != expected[:3]:
        raise VIReIDError(explain_kinds(name))
    if last_stride == 1 and sizes[3] != sizes[2]:
        raise VIReIDError(
            f"The last stride of '{name}' cannot be removed: a stage-3 map of {expected[2]} pixels becomes {sizes[3]} "
            "in stage 4. Set backbone_settings.last_stride: 2 or choose another backbone."
        )
    stem = size[0] // maps[0].shape[2]
    strides = [stem, *STAGE_STRIDES[:3], 16 * last_stride]
    return Trunk(stages, [part.shape[1] for part in maps], strides, streams, bool((maps[-1] < 0).any()))


def explain_kinds(name: str) -> str:
    """Return the sentence that says which backbones there are."""
    return (
        f"The backbone '{name}' has no four stages with maps at strides {', '.join(map(str, STAGE_STRIDES))} for "
        "images of any size, nor is it a plain vision transformer; choose one such as resnet50, convnext_tiny, "
        "swin_tiny_patch4_window7_224, hrnet_w18, vit_small_patch16_224 or vit_small_patch14_reg4_dinov2."
    )
