"""A timm CNN cut into its stem and four stages, with its last stride removed and its weights loaded."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import timm
import torch
from timm.layers.blur_pool import BlurPool2d
from timm.layers.conv2d_same import Conv2dSame
from timm.models import FeatureDictNet
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.modules.weights import find_weights, read_weights

STAGE_STRIDES = [4, 8, 16, 32]

# The maps of stages 3 and 4, 6 x 5 and 3 x 3, have odd sides, so that a kernel that keeps only even sizes is found out.
_PROBE = (1, 3, 96, 80)


def build_stages(
    name: str, *, pretrained: bool, weights: str | None, last_stride: int
) -> tuple[list[nn.Sequential], list[int]]:
    """Build the stem, with its max-pooling, and the four stages of a timm CNN.

    The parts keep timm's names of their modules: ``stages[1]`` of a ResNet has the parameters ``layer1.0...``.

    Args:
        name: A timm model name, with or without a tag of pretrained weights.
        pretrained: Load pretrained weights, from ``weights`` or, where that is None, those of the name's tag.
        weights: What :func:`~vireid_lightning.modules.weights.read_weights` takes: a file, a package or ``small``.
        last_stride: Stride of the last stage, 1 or 2. With 1, its convolutions and poolings of stride 2 get stride 1,
            and nothing is dilated.

    Returns:
        The stem and the four stages, and the number of channels of each one's map.

    Raises:
        VIReIDError: If timm has no such model, the model has no maps at strides 4, 8, 16 and 32, its last stride
            cannot be removed, or the weights cannot be loaded.
    """
    if last_stride not in (1, 2):
        raise VIReIDError(f"last_stride is {last_stride}; give 1 (as the papers do) or 2 (as trained on ImageNet).")
    if pretrained and weights is not None:
        find_weights(weights, name)
    # The structure is checked before any weights are read or downloaded.
    stages, channels = _assemble(_create(name), name, last_stride)
    if pretrained:
        stages, channels = _assemble(_create_pretrained(name, weights), name, last_stride)
    return stages, channels


def _assemble(network: nn.Module, name: str, last_stride: int) -> tuple[list[nn.Sequential], list[int]]:
    stages = _cut(network, name)
    if last_stride == 1:
        _remove_stride(stages[-1])
    return stages, _check_maps(stages, name, last_stride)


def _create(name: str, **arguments: Any) -> nn.Module:
    """Create timm's network up to its last stage, as an ordered dictionary of its children where timm can."""
    if ":" not in name and not timm.is_model(name):
        raise VIReIDError(
            f"timm has no model named '{name}'.{did_you_mean(name.split('.')[0], timm.list_models())} "
            "`python -c 'import timm; print(timm.list_models())'` lists all names."
        )
    try:
        network: nn.Module = timm.create_model(name, features_only=True, **arguments)
        if not isinstance(network, FeatureDictNet):
            # MobileNets and EfficientNets come as a class of their own unless a list is asked for.
            flat = {"feature_cls": "list", "flatten_sequential": True}
            network = timm.create_model(name, features_only=True, feature_cfg=flat, **arguments)
    except (RuntimeError, TypeError, AssertionError, AttributeError, ValueError) as error:
        if arguments:
            raise
        if "pretrained tag" in str(error):
            tags = timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)
            raise VIReIDError(f"{error}{did_you_mean(name, tags)} timm has {', '.join(tags) or 'none'}.") from error
        raise VIReIDError(_not_four_stages(name)) from error
    return network


def _create_pretrained(name: str, weights: str | None) -> nn.Module:
    """Create the network with the weights of a local file, or with those that timm downloads or has in its cache."""
    if weights is None:
        try:
            return _create(name, pretrained=True)
        except Exception as error:
            raise VIReIDError(
                f"The pretrained weights of '{name}' could not be loaded ({type(error).__name__}: {error}). Without a "
                "network, give a local file as weights, or pretrained: false for random weights."
            ) from error
    found = read_weights(weights, name)
    # custom_load tells the format of the tag's own weights, not of these.
    return _create(name, pretrained=True, pretrained_cfg_overlay={"state_dict": found, "custom_load": False})


def _cut(network: nn.Module, name: str) -> list[nn.Sequential]:
    """Cut the network behind the modules whose maps timm returns at strides 4, 8, 16 and 32."""
    if not isinstance(network, FeatureDictNet) or network.feature_info.reduction()[-4:] != STAGE_STRIDES:
        raise VIReIDError(_not_four_stages(name))
    children = list(network.items())
    ends = [[child for child, _ in children].index(last) + 1 for last in network.return_layers][-5:]
    if len(ends) == 5:
        stem_end = ends[0]
        while stem_end < ends[1] - 1 and _is_pooling(children[stem_end][1]):
            stem_end += 1
    else:
        # timm returns no map before the first stage, so the stem is all that comes before that stage's last module.
        stem_end = ends[0] - 1
    bounds = [0, stem_end, *ends[-4:]]
    return [nn.Sequential(OrderedDict(children[start:end])) for start, end in itertools.pairwise(bounds)]


def _is_pooling(module: nn.Module) -> bool:
    pools = any(isinstance(part, nn.MaxPool2d | nn.AvgPool2d) for part in module.modules())
    return pools and next(module.parameters(), None) is None


def _remove_stride(stage: nn.Module) -> None:
    """Give every strided convolution and pooling of a stage the stride 1, so that its maps keep their size."""
    for name, module in list(stage.named_modules()):
        replacement = _without_stride(module)
        if replacement is not module:
            parent, _, child = name.rpartition(".")
            setattr(stage.get_submodule(parent), child, replacement)


def _without_stride(module: nn.Module) -> nn.Module:
    if isinstance(module, BlurPool2d):
        return nn.Identity()  # its blur only prepares the stride
    if isinstance(module, nn.AvgPool2d | nn.MaxPool2d) and module.stride not in (1, (1, 1)):
        kernel = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
        if kernel % 2 == 0:
            return nn.Identity()  # such a pooling only halves the map; timm, too, builds none where the stride is 1
        module.stride = 1
    if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
        module.stride = (1, 1)
        if module.kernel_size[0] % 2 == 0 and type(module) is nn.Conv2d:
            # No symmetric padding keeps the size under an even kernel, so a row and a column are added at the end.
            same = Conv2dSame(
                module.in_channels,
                module.out_channels,
                (module.kernel_size[0], module.kernel_size[1]),
                dilation=(module.dilation[0], module.dilation[1]),
                groups=module.groups,
                bias=module.bias is not None,
            )
            same.weight, same.bias = module.weight, module.bias
            return same
    return module


@torch.no_grad()
def _check_maps(stages: list[nn.Sequential], name: str, last_stride: int) -> list[int]:
    """Run a small image through the stages, check the maps' sizes, and return their numbers of channels.

    A stage that begins with an in-place activation would overwrite the map of the stage before, so the network's
    activations are then made ordinary ones.
    """
    training = [stage.training for stage in stages]
    x, maps, versions = torch.zeros(_PROBE), [], []
    for stage in stages:
        try:
            x = stage.eval()(x)
        except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
            raise VIReIDError(f"{_not_four_stages(name)} (A small image failed: {error})") from error
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise VIReIDError(_not_four_stages(name))
        maps.append(x)
        versions.append(x._version)
    for stage, mode in zip(stages, training, strict=True):
        stage.train(mode)
    if [part._version for part in maps] != versions:
        for module in nn.ModuleList(stages).modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # torch types every attribute as Tensor | Module
    expected = [tuple(-(-side // stride) for side in _PROBE[2:]) for stride in STAGE_STRIDES]
    sizes = [tuple(part.shape[2:]) for part in maps[1:]]
    if sizes[:3] != expected[:3]:
        raise VIReIDError(_not_four_stages(name))
    if last_stride == 1 and sizes[3] != sizes[2]:
        raise VIReIDError(
            f"The last stride of '{name}' cannot be removed: a stage-3 map of {expected[2]} pixels becomes {sizes[3]} "
            "in stage 4. Set last_stride: 2 or choose another backbone."
        )
    return [part.shape[1] for part in maps]


def _not_four_stages(name: str) -> str:
    return (
        f"The backbone '{name}' has no four stages with maps at strides {', '.join(map(str, STAGE_STRIDES))}; choose a "
        "CNN that has, such as resnet50, mobilenetv3_small_050, efficientnet_b0, convnext_atto or regnetx_002."
    )
