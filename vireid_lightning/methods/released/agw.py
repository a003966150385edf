"""The weights that AGW's authors released."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from vireid_lightning.methods.agw import AGW
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.released.release import BACKBONE, Release, State, count_indices


class AGWRelease(Release):
    """Layout of the weights of AGW's authors."""

    title, image_size, regdb_image_size, interpolation = "AGW", (288, 144), (288, 144), "lanczos"
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
        """Return the module whose sizes are those of the file, with fresh weights."""
        classifier, theta = (state[name] for name in self.sizing)
        count = (count_indices(state, r"NL_2\.(\d+)\..+"), count_indices(state, r"NL_3\.(\d+)\..+"))
        return AGW(num_classes=len(classifier), non_local_blocks=count, non_local_channels=len(theta), **BACKBONE)

    def rename(self, name: str, state: State) -> str | None:
        """Return our name of a tensor in the file, None for one that the method does not use."""
        if match := re.fullmatch(r"NL_([23])\.(\d+)\.(g\.0|theta|phi|W\.[01])\.(.+)", name):
            stage, index, layer, rest = match.groups()
            # The file counts non-local blocks, we name them after the block that they follow: the stage's last ones.
            blocks = count_indices(state, rf"base_resnet\.base\.layer{stage}\.(\d+)\..+")
            block = blocks - count_indices(state, rf"NL_{stage}\.(\d+)\..+") + int(index)
            return f"backbone.stages.{stage}.layer{stage}.{block}_non_local.{self._layers[layer]}.{rest}"
        return super().rename(name, state)
