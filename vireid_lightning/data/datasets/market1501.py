"""Market-1501 (Zheng et al., ICCV 2015): visible images only, a source for learning without infrared labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from vireid_lightning.data.datasets.base import PublishedSplit, Split
from vireid_lightning.data.datasets.folders import list_images
from vireid_lightning.data.datasets.visible_only import VisibleOnlyDataset
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import UNKNOWN, VISIBLE, Sample

TRAIN_FOLDER = "bounding_box_train"
TEST_FOLDERS = ("bounding_box_test", "query")

#: Numbers in file names that are no identity: -1 marks a bad detection, 0 a person whom no query shows.
_JUNK, _DISTRACTOR = -1, 0


class Market1501(VisibleOnlyDataset):
    """Market-1501 in its own layout: ``root/bounding_box_train/0002_c1s1_000451_03.jpg`` (identity, camera), and so on.

    Files of identity -1, which are bad detections, are left out; those of 0000, distractors of the test gallery, come
    with the identity -1 (unknown). The test folders may be absent, as a source needs only the training images.

    Args:
        root: The dataset's folder.

    Raises:
        VIReIDError: The root or its ``bounding_box_train`` is missing.
    """

    name: ClassVar[str] = "Market-1501"
    # The paper's counts. The test images are 3,368 queries and 15,913 gallery images: 19,732 without the 3,819 bad
    # detections.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": PublishedSplit(751, {(VISIBLE, None): 12936}),
        "test": PublishedSplit(750, {(VISIBLE, None): 19281}),
    }

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        if not (self.root / TRAIN_FOLDER).is_dir():
            raise VIReIDError(
                f"{self.name}: the folder {self.root / TRAIN_FOLDER} is missing. Give the folder that holds "
                f"{TRAIN_FOLDER} as the root."
            )

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split, from the file names."""
        return sorted({sample.identity for sample in self.samples(split)} - {UNKNOWN})

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path; ``val`` is the test split.

        Raises:
            VIReIDError: An image's name is not of the dataset's form, or there is no training image.
        """
        folders = (TRAIN_FOLDER,) if split == "train" else TEST_FOLDERS
        samples = [sample for folder in folders for sample in self._list(folder)]
        if split == "train" and not samples:
            raise VIReIDError(f"{self.name}: {self.root / TRAIN_FOLDER} holds no images. Unpack the download there.")
        return samples

    def _list(self, folder: str) -> list[Sample]:
        """List a folder's images; identity and camera are in their names."""
        samples = []
        for name in list_images(self.root / folder):
            match = re.match(r"(-?\d+)_c(\d+)", name)
            if match is None:
                raise VIReIDError(
                    f"{self.name}: {self.root / folder / name} is not named like 0002_c1s1_000451_03.jpg (identity, "
                    "camera). Remove the file, or name it so."
                )
            number, camera = int(match.group(1)), int(match.group(2))
            if number != _JUNK:
                samples.append(
                    Sample(f"{folder}/{name}", UNKNOWN if number == _DISTRACTOR else number, VISIBLE, camera)
                )
        return samples
