"""The weights that DCLNet's authors released."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.dclnet import DCLNet
from vireid_lightning.methods.released.release import BACKBONE, Release, State


class DCLNetRelease(Release):
    """Layout of the weights of DCLNet's authors."""

    title, image_size, regdb_image_size, interpolation = "DCLNet", (288, 144), (288, 144), "lanczos"
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
        """Return the module whose sizes are those of the file, with fresh weights."""
        whole, parts = (state[name] for name in self.sizing)
        return DCLNet(num_classes=len(whole), parts=parts.shape[1] // whole.shape[1], **BACKBONE)
