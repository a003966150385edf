"""Augmentation of training images, built from albumentations and seeded image by image."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.images.resizing import LARGEST_SIDE, check_image_size
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.kinds import check_kinds


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
        augmentation.check()
        check_image_size(image_size)
        steps: list[A.BasicTransform] = []
        if augmentation.flip:
            steps.append(A.HorizontalFlip(p=augmentation.flip))
        if augmentation.pad:
            steps.append(A.Pad(augmentation.pad, fill=augmentation.pad_fill, border_mode=cv2.BORDER_CONSTANT, p=1))
            steps.append(A.RandomCrop(*image_size, p=1))
        if augmentation.jitter:
            steps.append(
                A.ColorJitter(
                    brightness=augmentation.brightness,
                    contrast=augmentation.contrast,
                    saturation=augmentation.saturation,
                    hue=0,
                    p=augmentation.jitter,
                )
            )
        if augmentation.grayscale:
            steps.append(A.ToGray(p=augmentation.grayscale))
        if augmentation.channel_exchange:
            steps.append(ChannelExchange(p=augmentation.channel_exchange))
        area, ratio = augmentation.erasing_area, augmentation.erasing_ratio
        if augmentation.channel_erasing:
            fill = augmentation.channel_erasing_fill
            steps.append(RandomErasing(scale=area, ratio=ratio, fill=fill, p=augmentation.channel_erasing))
        if augmentation.erasing:
            steps.append(RandomErasing(scale=area, ratio=ratio, fill=0, fill_mask=1, p=augmentation.erasing))
        self.image_size = image_size
        self.pipeline = A.Compose(steps)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Augment an image.

        Args:
            image: (H, W, 3) uint8, RGB, of the transform's size.
            seed: Seed of this image's random draws.

        Returns:
            The (H, W, 3) uint8 image, and an (H, W) mask of the pixels that random erasing blanked.
        """
        # One pair of generators for all steps. Compose.set_random_seed would give every step its own pair with the same
        # seed, and then a flip and an erasing of probability 0.5 would always happen together; it also takes six times
        # as long.
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = self.pipeline(image=image, mask=np.zeros(self.image_size, dtype=np.uint8))
        return result["image"], result["mask"].astype(bool)


class ChannelExchange(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations ships no types
    """Replaces all three channels by one of them (Ye et al., ICCV 2021, channel exchangeable augmentation)."""

    def get_params(self) -> dict[str, Any]:
        """Draw the channel that stays."""
        return {"channel": self.py_random.randrange(3)}

    def apply(self, img: NDArray[np.uint8], channel: int, **params: Any) -> NDArray[np.uint8]:
        """Return the (H, W, 3) image with all channels equal to the drawn one."""
        return np.repeat(img[:, :, channel : channel + 1], 3, axis=2)


class RandomErasing(A.Erasing):  # type: ignore[misc]  # albumentations ships no types
    """Fills one random rectangle, with the distribution of Zhong et al. (AAAI 2020) as torchvision draws it.

    Area uniform, logarithm of height / width uniform, and another try where the rectangle does not fit.
    ``albumentations.Erasing`` instead lowers the largest area until a rectangle of any ratio fits: at most a tenth of
    a pedestrian's 384 x 128 image where the papers erase up to a third.
    """

    TRIES = 10

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw a rectangle as ``holes``, (1, 4): x and y of its first and its second corner; (0, 4) if none fits.

        ``seed`` is for random fills, which are not used here.
        """
        height, width = params["shape"][:2]
        for _ in range(self.TRIES):
            area = height * width * self.py_random.uniform(*self.scale)
            ratio = math.exp(self.py_random.uniform(*(math.log(limit) for limit in self.ratio)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                top, left = self.py_random.randint(0, height - rows), self.py_random.randint(0, width - columns)
                return {"holes": np.array([[left, top, left + columns, top + rows]], dtype=np.int32), "seed": 0}
        return {"holes": np.empty((0, 4), dtype=np.int32), "seed": 0}
