"""How a method's authors named and shaped the weights that they published."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from vireid_lightning.data.images.resizing import Interpolation
from vireid_lightning.methods.base import ReIDModule

State = Mapping[str, Tensor]

#: All releases were trained on torchvision's ResNet-50; the weights come from the file.
BACKBONE: dict[str, Any] = {"backbone": "resnet50.tv_in1k", "pretrained": False}


class Release(ABC):
    """How one method's authors named and shaped what they published.

    Attributes:
        title: The method's name.
        image_size: Height and width that the authors trained on for SYSU-MM01.
        regdb_image_size: The same for RegDB.
        interpolation: Filter of Pillow's by which the authors resize images.
        signature: The beginning of names that no other release has.
        sizing: Tensors whose shapes tell the constructor's arguments.
        rules: Pattern of a name in the file -> name in our state dict; names that fit none are not used.
    """

    title: ClassVar[str]
    image_size: ClassVar[tuple[int, int]]
    regdb_image_size: ClassVar[tuple[int, int]]
    interpolation: ClassVar[Interpolation]
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


def count_indices(state: State, pattern: str) -> int:
    """Return the number of different indices that names of a pattern have."""
    return len({match.group(1) for name in state if (match := re.fullmatch(pattern, name))})
