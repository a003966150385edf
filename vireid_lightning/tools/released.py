"""Where the tensors of released checkpoints belong in our modules: state-dict names and what their shapes tell."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.methods import AGW, DCLNet, MPANet
from vireid_lightning.methods.base import ReIDModule

State = Mapping[str, Tensor]

#: All three were trained on torchvision's ResNet-50; the weights come from the file.
_BACKBONE = {"backbone": "resnet50.tv_in1k", "pretrained": False}


class Release(ABC):
    """How one method's authors named and shaped what they published.

    Attributes:
        title: The method's name.
        image_size: Height and width that the authors trained on.
        signature: The beginning of names that no other release has.
        sizing: Tensors whose shapes tell the constructor's arguments.
        rules: Pattern of a name in the file -> name in our state dict; names that fit none are not used.
    """

    title: ClassVar[str]
    image_size: ClassVar[tuple[int, int]]
    signature: ClassVar[tuple[str, ...]]
    sizing: ClassVar[tuple[str, ...]]
    rules: ClassVar[Mapping[str, str]]

    @abstractmethod
    def build(self, state: State) -> ReIDModule:
        """Return the module whose sizes are those of the file, with fresh weights."""

    def rename(self, name: str, state: State) -> str | None:
        """Return our name of a tensor in the file, None for one that the method does not use."""
        for pattern, replacement in self.rules.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement)
        return None


class _MPANetRelease(Release):
    title, image_size = "MPANet", (384, 128)
    signature = ("spatial_attention.", "backbone.MAM")
    sizing = ("classifier.weight", "spatial_attention.weight")
    rules: ClassVar[Mapping[str, str]] = {
        r"backbone\.((?:conv1|bn1)\..+)": r"backbone.stages.0.\1",
        r"backbone\.layer([1-4])\.(.+)": r"backbone.stages.\1.layer\1.\2",
        r"backbone\.MAM([34])\.channel_attention\.(.+)": r"backbone.after.\1.attention.\2",
        r"spatial_attention\.(.+)": r"patterns.masks.\1",
        r"bn_neck\.(.+)": r"neck.\1",
        r"classifier\.weight": r"classifier.weight",
        r"(visible|infrared)_classifier\.weight": r"modality_classifiers.\1.weight",
        r"(visible|infrared)_classifier_\.weight": r"modality_classifiers.\1_mean",
    }

    def build(self, state: State) -> ReIDModule:
        classes, parts = (len(state[name]) for name in self.sizing)
        return MPANet(num_classes=classes, parts=parts, **_BACKBONE)


class _DCLNetRelease(Release):
    title, image_size = "DCLNet", (288, 144)
    signature = ("part_classifier.", "pixel_classifier_")
    sizing = ("classifier.weight", "part_classifier.weight")
    rules: ClassVar[Mapping[str, str]] = {
        r"visible_module\.base\.((?:conv1|bn1)\..+)": r"backbone.stages.0.visible.\1",
        r"visible_module\.base\.(layer1\..+)": r"backbone.stages.1.visible.\1",
        r"thermal_module\.base\.((?:conv1|bn1)\..+)": r"backbone.stages.0.infrared.\1",
        r"thermal_module\.base\.(layer1\..+)": r"backbone.stages.1.infrared.\1",
        r"shared_module\.base\.layer([2-4])\.(.+)": r"backbone.stages.\1.layer\1.\2",
        r"bottleneck\.(.+)": r"neck.\1",
        r"classifier\.weight": r"classifier.weight",
        r"part_bottleneck\.(.+)": r"parsing.neck.\1",
        r"part_classifier\.weight": r"parsing.classifier.weight",
        r"pixel_classifier_rgb\.weight": r"pixels.visible.weight",
        r"pixel_classifier_ir\.weight": r"pixels.infrared.weight",
    }

    def build(self, state: State) -> ReIDModule:
        whole, parts = (state[name] for name in self.sizing)
        return DCLNet(num_classes=len(whole), parts=parts.shape[1] // whole.shape[1], **_BACKBONE)


class _AGWRelease(Release):
    title, image_size = "AGW", (288, 144)
    signature = ("NL_2.", "NL_3.")
    sizing = ("classifier.weight", "NL_2.0.theta.weight")
    rules: ClassVar[Mapping[str, str]] = {
        r"visible_module\.visible\.((?:conv1|bn1)\..+)": r"backbone.stages.0.visible.\1",
        r"thermal_module\.thermal\.((?:conv1|bn1)\..+)": r"backbone.stages.0.infrared.\1",
        r"base_resnet\.base\.layer([1-4])\.(.+)": r"backbone.stages.\1.layer\1.\2",
        r"bottleneck\.(.+)": r"neck.\1",
        r"classifier\.weight": r"classifier.weight",
    }
    _layers: ClassVar[Mapping[str, str]] = {"g.0": "g", "theta": "theta", "phi": "phi", "W.0": "project", "W.1": "norm"}

    def build(self, state: State) -> ReIDModule:
        classifier, theta = (state[name] for name in self.sizing)
        count = (_count(state, r"NL_2\.(\d+)\..+"), _count(state, r"NL_3\.(\d+)\..+"))
        return AGW(num_classes=len(classifier), non_local_blocks=count, non_local_channels=len(theta), **_BACKBONE)

    def rename(self, name: str, state: State) -> str | None:
        if match := re.fullmatch(r"NL_([23])\.(\d+)\.(g\.0|theta|phi|W\.[01])\.(.+)", name):
            stage, index, layer, rest = match.groups()
            # The file counts non-local blocks, we name them after the block that they follow: the stage's last ones.
            blocks = _count(state, rf"base_resnet\.base\.layer{stage}\.(\d+)\..+")
            block = blocks - _count(state, rf"NL_{stage}\.(\d+)\..+") + int(index)
            return f"backbone.stages.{stage}.layer{stage}.{block}_non_local.{self._layers[layer]}.{rest}"
        return super().rename(name, state)


def _count(state: State, pattern: str) -> int:
    """Return the number of different indices that names of a pattern have."""
    return len({match.group(1) for name in state if (match := re.fullmatch(pattern, name))})


RELEASES: dict[str, Release] = {"mpanet": _MPANetRelease(), "dclnet": _DCLNetRelease(), "agw": _AGWRelease()}


def release_of(method: str) -> Release:
    """Return the release of a method by its name in any case."""
    if method.lower() not in RELEASES:
        raise VIReIDError(
            f"There is no released layout for the method '{method}'; there are {', '.join(RELEASES)}."
            f"{did_you_mean(method, RELEASES)}"
        )
    return RELEASES[method.lower()]


def looks_like(state: State) -> str:
    """Say in a few words whose network a state dict is."""
    for key, release in RELEASES.items():
        if any(name.startswith(release.signature) for name in state):
            return f"{release.title} (--method {key})"
    roots = sorted({name.split(".")[0] for name in state})
    if {"conv1", "layer4"} <= set(roots):
        return "a plain ResNet, such as torchvision's ImageNet weights"
    if {"visible_module", "thermal_module"} <= set(roots):
        return "a two-stream network without AGW's non-local blocks or DCLNet's part classifiers"
    shown = ", ".join(roots[:6]) + (", ..." if len(roots) > 6 else "")
    return f"none of the released ones: its tensors are named {shown}"
