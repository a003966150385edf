"""A tiny dataset of noise images, written on the spot: for tests that need files but no real layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from vireid_lightning.data.datasets.base import ReIDDataset, Split
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import Sample

#: Images of each training identity, (visible, infrared). Identities 5 and 6 lack a modality; 9 has fewer than K = 3.
TRAIN = {2: (5, 4), 3: (4, 6), 5: (3, 0), 6: (0, 2), 9: (2, 1), 11: (7, 7)}
TEST = {20: (3, 2), 21: (2, 3), 22: (1, 1)}


class FakeDataset(ReIDDataset):
    name: ClassVar[str] = "Fake"
    default_protocol: ClassVar[str] = "infrared-to-visible"

    def identities(self, split: Split) -> list[int]:
        return sorted(TRAIN if split == "train" else TEST)

    def samples(self, split: Split) -> list[Sample]:
        counts = TRAIN if split == "train" else TEST
        folder = "train" if split == "train" else "test"
        return [
            Sample(f"{folder}/{identity:02d}_{'vi'[modality]}{number}.png", identity, modality, 1 + modality)
            for identity, by_modality in counts.items()
            for modality in (0, 1)
            for number in range(by_modality[modality])
        ]

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        visible, infrared = (
            np.array([p for p, sample in enumerate(samples) if sample.modality == modality]) for modality in (0, 1)
        )
        # The first protocol leaves out the last visible image, the second uses every image.
        return [
            Protocol("infrared-to-visible", (Trial(infrared, visible[1:]), Trial(infrared, visible[2:]))),
            Protocol("visible-to-infrared", (Trial(visible, infrared),)),
        ]


def write_fake_dataset(root: Path, size: tuple[int, int] = (24, 12)) -> FakeDataset:
    """Write the images, (height, width) ``size``, and return the dataset."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    dataset = FakeDataset(root)
    for split in ("train", "test"):
        (root / split).mkdir(exist_ok=True)
        for sample in dataset.samples(split):
            shape = (*size, 3) if sample.modality == 0 else size
            cv2.imwrite(str(root / sample.path), generator.integers(1, 256, shape, dtype=np.uint8))
    return dataset
