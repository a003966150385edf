"""Augmentation of training images, seeded image by image."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.images.resizing import LARGEST_SIDE, check_image_size
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.kinds import check_kinds

#: Rectangles drawn for random erasing before it gives up.
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """What happens to the training images of one modality, in this order; the defaults are MPANet's.

    A probability of 0 leaves a step out. Every step may be given for either modality; those that only move colours
    between channels change nothing in an infrared image, whose channels are equal.

    Args:
        flip: Probability of a horizontal flip.
        pad: Number of pixels added on each side before a random crop back to the image's size; 0: no crop.
        pad_fill: Grey value of the added pixels.
        jitter: Probability of changing brightness, contrast and saturation.
        brightness: The brightness is multiplied by a factor from [1 - brightness, 1 + brightness].
        contrast: The contrast is multiplied by a factor from [1 - contrast, 1 + contrast].
        saturation: The saturation is multiplied by a factor from [1 - saturation, 1 + saturation].
        grayscale: Probability of replacing the colours by their luminance.
        channel_exchange: Probability of replacing all channels by one of them, drawn at random (Ye et al., ICCV 2021).
        channel_erasing: Probability of filling a random rectangle with ``channel_erasing_fill`` (Ye et al., ICCV
            2021). These pixels do not count as erased.
        channel_erasing_fill: Pixel value of each channel in that rectangle. The default is what the authors' code
            writes after normalisation (0.4914, 0.4822, 0.4465), as pixel values.
        erasing: Probability of blanking a random rectangle: exactly 0 after normalisation (Zhong et al., AAAI 2020).
        erasing_area: Smallest and largest area of a rectangle, as a share of the image.
        erasing_ratio: Smallest and largest height / width of a rectangle.

    Example:
        >>> Augmentation(grayscale=0.5, pad=0).erasing
        0.5
    """

    flip: float = 0.5
    pad: int = 10
    pad_fill: int = 127
    jitter: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    grayscale: float = 0.0
    channel_exchange: float = 0.0
    channel_erasing: float = 0.0
    channel_erasing_fill: tuple[int, int, int] = (152, 144, 129)
    erasing: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.33)
    erasing_ratio: tuple[float, float] = (0.3, 3.3)

    def check(self) -> Augmentation:
        """Return the augmentation itself if every value is in its range.

        This is not done on construction, because a command-line parser that tries this as one of several types of an
        argument would hide the message.

        Raises:
            VIReIDError: A value is outside its range.
        """
        check_kinds(vars(self), Augmentation, "Augmentation: ")
        for name in ("flip", "jitter", "grayscale", "channel_exchange", "channel_erasing", "erasing"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability between 0 and 1")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a value between 0 and 1")
        _require(0 <= self.pad <= LARGEST_SIDE, "pad", self.pad, f"0 to {LARGEST_SIDE} pixels")
        _require(0 <= self.pad_fill <= 255, "pad_fill", self.pad_fill, "a grey value of 0 to 255")
        fill = self.channel_erasing_fill
        _require(all(0 <= value <= 255 for value in fill), "channel_erasing_fill", fill, "values of 0 to 255")
        low, high = self.erasing_area
        _require(0 < low <= high <= 1, "erasing_area", self.erasing_area, "two ascending shares between 0 and 1")
        low, high = self.erasing_ratio
        _require(0 < low <= high, "erasing_ratio", self.erasing_ratio, "two ascending ratios above 0")
        return self

    @staticmethod
    def named(pipeline: Augmentation | Pipeline) -> Augmentation:
        """Return the pipeline of that name, or the augmentation itself.

        Raises:
            VIReIDError: There is no pipeline of that name, or a value of the augmentation is outside its range.
        """
        if isinstance(pipeline, Augmentation):
            return pipeline.check()
        if pipeline not in PIPELINES:
            raise VIReIDError(
                f"There is no augmentation pipeline '{pipeline}', only {', '.join(PIPELINES)}."
                f"{did_you_mean(pipeline, PIPELINES)}"
            )
        return PIPELINES[pipeline]


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise an error about a value that is out of its range."""
    if not holds:
        raise VIReIDError(f"Augmentation: {name} is {value}; give {wanted}.")


Pipeline = Literal["none", "agw", "caj", "mpanet", "dclnet"]

#: The papers' settings, each for both modalities.
PIPELINES: dict[str, Augmentation] = {
    "none": Augmentation(flip=0, pad=0, erasing=0),
    # Ye et al., TPAMI 2022
    "agw": Augmentation(pad_fill=0, erasing=0),
    # Ye et al., ICCV 2021. The authors train on each visible image as it is and once more with exchanged channels; in
    # one view that is every other image.
    "caj": Augmentation(
        pad_fill=0,
        channel_exchange=0.5,
        channel_erasing=0.5,
        erasing=0,
        erasing_area=(0.02, 0.4),
        erasing_ratio=(0.3, 1 / 0.3),
    ),
    # Wu et al., CVPR 2021
    "mpanet": Augmentation(),
    # Sun et al., ACM MM 2022
    "dclnet": Augmentation(pad=0, grayscale=0.5),
}


class TrainTransform:
    """Augments images of one size; the random draws of each call follow from its seed alone.

    Args:
        augmentation: What happens to the images.
        image_size: Height and width of the images.

    Raises:
        VIReIDError: A value of the augmentation is outside its range.
    """

    def __init__(self, augmentation: Augmentation, image_size: tuple[int, int]) -> None:
        self.augmentation = augmentation.check()
        check_image_size(image_size)
        self.image_size = image_size
        # Where nothing changes colours, albumentations and the second it takes to import are not needed.
        self.colour_steps: list[Any] = []
        if augmentation.jitter or augmentation.grayscale:
            import albumentations as A

            limits = augmentation.brightness, augmentation.contrast, augmentation.saturation
            self.colour_steps = [
                A.ColorJitter(*limits, hue=0, p=augmentation.jitter),
                A.ToGray(p=augmentation.grayscale),
            ]

    def __call__(self, image: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Augment an image.

        Args:
            image: (H, W, 3) uint8, RGB, of the transform's size.
            seed: Seed of this image's random draws.

        Returns:
            The (H, W, 3) uint8 image, and an (H, W) mask of the pixels that random erasing blanked.
        """
        settings, draws = self.augmentation, random.Random(seed)
        draws.random()  # not used: albumentations' Compose drew it first, and a seed's draws stay what they were
        image = self._move(image, draws)
        # One pair of generators for all steps: a pair for each, with the same seed, would make a flip and a jitter of
        # probability 0.5 always happen together.
        generator = np.random.default_rng(seed) if self.colour_steps else None
        for step in self.colour_steps:
            step.set_random_state(generator, draws)
            image = step(image=image)["image"]
        if _happens(settings.channel_exchange, draws):
            channel = draws.randrange(3)  # Ye et al., ICCV 2021: one channel in place of all three
            image = np.repeat(image[:, :, channel : channel + 1], 3, axis=2)
        if _happens(settings.channel_erasing, draws):
            image[self._draw_rectangle(draws)] = settings.channel_erasing_fill
        erased = np.zeros(self.image_size, dtype=bool)
        if _happens(settings.erasing, draws):
            rectangle = self._draw_rectangle(draws)
            image[rectangle] = 0
            erased[rectangle] = True
        return image, erased

    def _move(self, image: NDArray[np.uint8], draws: random.Random) -> NDArray[np.uint8]:
        """Return a copy of the image, flipped, padded and cropped as drawn."""
        if _happens(self.augmentation.flip, draws):
            image = np.asarray(cv2.flip(image, 1), dtype=np.uint8)
        pad = self.augmentation.pad
        if not pad:
            return np.array(image, dtype=np.uint8, order="C")
        fill = (self.augmentation.pad_fill,) * 3
        padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=fill)
        top, left = (int((2 * pad + 1) * draws.random()) for _ in range(2))
        height, width = self.image_size
        return np.array(padded[top : top + height, left : left + width], dtype=np.uint8, order="C")

    def _draw_rectangle(self, draws: random.Random) -> tuple[slice, slice]:
        """Draw rows and columns to erase as torchvision draws them (Zhong et al., AAAI 2020); none where none fits.

        Area uniform, logarithm of height / width uniform, and another try where the rectangle does not fit.
        ``albumentations.Erasing`` instead lowers the largest area until a rectangle of any ratio fits: at most a tenth
        of a pedestrian's 384 x 128 image where the papers erase up to a third.
        """
        height, width = self.image_size
        for _ in range(_TRIES):
            area = height * width * draws.uniform(*self.augmentation.erasing_area)
            ratio = math.exp(draws.uniform(*map(math.log, self.augmentation.erasing_ratio)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                top, left = draws.randint(0, height - rows), draws.randint(0, width - columns)
                return slice(top, top + rows), slice(left, left + columns)
        return slice(0), slice(0)


def _happens(probability: float, draws: random.Random) -> bool:
    """Return whether a step happens; certain ones take no draw."""
    return probability >= 1 or (probability > 0 and draws.random() < probability)
