"""The weights that MPANet's authors released."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.mpanet import MPANet
from vireid_lightning.methods.released.release import BACKBONE, Release, State


class MPANetRelease(Release):
    """Layout of the weights of MPANet's authors."""

    title, image_size, regdb_image_size, interpolation = "MPANet", (384, 128), (256, 128), "bilinear"
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
        """Return the module whose sizes are those of the file, with fresh weights."""
        classes, parts = (len(state[name]) for name in self.sizing)
        return MPANet(num_classes=classes, parts=parts, **BACKBONE)
