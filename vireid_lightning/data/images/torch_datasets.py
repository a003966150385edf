"""The map-style datasets that loading processes hold: an image and its labels at a position."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vireid_lightning.data.images.augmentation import TrainTransform
from vireid_lightning.data.images.reading import BadImageError
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.printable import make_printable
from vireid_lightning.types import UNKNOWN, Sample


class Images(Protocol):
    """Images by position: :class:`~vireid_lightning.data.images.reading.ImageFiles` or a cache of them."""

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image at a position."""
        ...


class TrainingImages(Dataset[dict[str, Any]]):
    """Augmented training images.

    Args:
        samples: The training images.
        images: Pixels of the samples, in their order.
        identities: The identity number of each class, in the order of the classes.
        transforms: The augmentation of each modality.
        skip_bad: Whether an image that cannot be read is replaced by the next of its identity and modality instead of
            raising a :class:`~vireid_lightning.data.images.reading.BadImageError`.

    Attributes:
        bad: (N,) bool, True for the images found unreadable; shared by all loading processes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        images: Images,
        identities: Sequence[int],
        transforms: Sequence[TrainTransform],
        *,
        skip_bad: bool = False,
    ) -> None:
        self.samples = list(samples)
        self.images = images
        self.classes = {UNKNOWN: UNKNOWN, **{identity: number for number, identity in enumerate(identities)}}
        self.transforms = list(transforms)
        self.skip_bad = skip_bad
        self.bad = torch.zeros(len(self.samples), dtype=torch.bool)
        self.bad.share_memory_()

    def __len__(self) -> int:
        """Return the number of training images."""
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return one item of a training batch, its image as (3, H, W) uint8 with the mask ``erased``, (H, W) bool."""
        position, image = self._read(draw.index)
        sample = self.samples[position]
        image, erased = self.transforms[sample.modality](image, draw.seed)
        item = _make_item(sample, position, image, self.classes[sample.identity])
        return {**item, "erased": torch.from_numpy(erased)}

    def _read(self, position: int) -> tuple[int, NDArray[np.uint8]]:
        """Return the image at a position, or its replacement, with the position that it comes from."""
        try:
            return position, self.images[position]
        except BadImageError as error:
            if not self.skip_bad:
                raise
            if not self.bad[position]:
                self.bad[position] = True
                warnings.warn(f"{make_printable(error)} It is skipped (on_bad_image: skip).", stacklevel=2)
            failure = error
        wanted = self.samples[position]
        count = len(self.samples)
        for step in range(1, count):
            other = (position + step) % count
            sample = self.samples[other]
            if (sample.identity, sample.modality) == (wanted.identity, wanted.modality) and not self.bad[other]:
                try:
                    return other, self.images[other]
                except BadImageError:
                    self.bad[other] = True
        raise failure  # no image of this identity and modality can be read


class EvaluationImages(Dataset[dict[str, Any]]):
    """Images as they are, with the dataset's own identity numbers.

    Args:
        samples: The images to extract.
        images: Pixels of the samples, in their order.
    """

    def __init__(self, samples: Sequence[Sample], images: Images) -> None:
        self.samples = list(samples)
        self.images = images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return one item of an evaluation batch, its image as (3, H, W) uint8."""
        sample = self.samples[position]
        return _make_item(sample, position, self.images[position], sample.identity)


def _make_item(sample: Sample, position: int, image: NDArray[np.uint8], identity: int) -> dict[str, Any]:
    """Return one item of a batch."""
    planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
    cv2.split(image, list(planes))  # a transposed copy, in a quarter of NumPy's time
    return {
        "image": torch.from_numpy(planes),
        "identity": identity,
        "modality": sample.modality,
        "camera": sample.camera,
        "index": position,
    }
