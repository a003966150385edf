"""Which values of images of more than 8 bits, such as a radiometric thermal camera's, become black and white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.images.reading import (
    BadImageError,
    Limits,
    check_header,
    check_limits,
    decode,
    read_content,
    read_start,
)
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds
from vireid_lightning.types import MODALITIES, Sample

#: Percentiles are those of at most so many images of a modality, spread evenly over the training set's list ...
MEASURED_IMAGES = 1000

#: ... and of at most so many pixels of each, spread evenly over the image.
MEASURED_PIXELS = 10_000


class Listing(Protocol):
    """What lists the training images: a dataset."""

    root: Path

    def samples(self, split: Literal["train"]) -> Sequence[Sample]:
        """Return the images of a split."""
        ...


@dataclass(frozen=True)
class IntensityRange:
    """Which values become black and white in images of more than 8 bits; images of 8 bits stay as they are.

    Args:
        visible: The two values of a visible image that become black and white, such as [0, 65535]; null: none are
            given.
        infrared: The two values of an infrared image that become black and white, such as [7300, 8240] counts of a
            thermal camera; null: none are given.
        visible_percentiles: Instead of values, two percentiles of the values of the visible training images.
        infrared_percentiles: Instead of values, two percentiles of the values of the infrared training images, such
            as [0.5, 99.5].

    Example:
        >>> IntensityRange(infrared=(7300, 8240)).check().infrared
        (7300, 8240)
    """

    visible: tuple[float, float] | None = None
    infrared: tuple[float, float] | None = None
    visible_percentiles: tuple[float, float] | None = None
    infrared_percentiles: tuple[float, float] | None = None

    def check(self) -> IntensityRange:
        """Return the range itself if every value fits.

        Raises:
            VIReIDError: Two values do not ascend, percentiles are outside 0 to 100, or a modality has both.
        """
        percentiles_of = {name: value for name, value in vars(self).items() if name.endswith("_percentiles")}
        check_kinds(percentiles_of, IntensityRange, "intensity_range.")
        for modality in MODALITIES:
            values, percentiles = self._get(modality)
            if values is not None and percentiles is not None:
                raise VIReIDError(
                    f"intensity_range.{modality} and intensity_range.{modality}_percentiles are both set: give one."
                )
            check_limits(f"intensity_range.{modality}", values)
            if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
                raise VIReIDError(
                    f"intensity_range.{modality}_percentiles is {list(percentiles)}: give two ascending percentiles "
                    "of 0 to 100, such as [0.5, 99.5]."
                )
        return self

    def measure(self, dataset: Listing) -> tuple[Limits | None, ...]:
        """Return the limits of each modality, None where none are given; percentiles become values here.

        Args:
            dataset: The dataset, whose training images are read for percentiles alone.

        Raises:
            VIReIDError: Percentiles are given for a modality without a training image of more than 8 bits, or they
                are one value.
        """
        limits: list[Limits | None] = []
        for number, modality in enumerate(MODALITIES):
            values, percentiles = self._get(modality)
            if percentiles is not None:
                samples = dataset.samples("train")
                paths = [dataset.root / sample.path for sample in samples if sample.modality == number]
                values = _measure_percentiles(paths, percentiles, modality)
            limits.append(None if values is None else (float(values[0]), float(values[1])))
        return tuple(limits)

    def _get(self, modality: str) -> tuple[Limits | None, Limits | None]:
        """Return the values and the percentiles of a modality."""
        return getattr(self, modality), getattr(self, f"{modality}_percentiles")


def _measure_percentiles(paths: Sequence[Path], percentiles: Limits, modality: str) -> Limits:
    """Return the values of two percentiles over the images of more than 8 bits; files that are damaged are left out."""
    chosen = _spread(len(paths), MEASURED_IMAGES)
    found = [values for values in (_sample_values(paths[position]) for position in chosen) if values.size]
    if not found:
        raise VIReIDError(
            f"intensity_range.{modality}_percentiles is {list(percentiles)}, but none of the {len(chosen)} {modality} "
            f"training images looked at has more than 8 bits: leave intensity_range.{modality}_percentiles out."
        )
    low, high = np.percentile(np.concatenate(found), percentiles)
    if not low < high:
        raise VIReIDError(
            f"intensity_range.{modality}_percentiles {list(percentiles)} of the training images are one value, "
            f"{low:g}: give percentiles that are further apart, or two values."
        )
    return float(low), float(high)


def _sample_values(path: Path) -> NDArray[np.float64]:
    """Return some values of an image of more than 8 bits; none of one of 8 bits, and of a file that cannot be read."""
    try:
        if check_header(path, read_start(path)).bits <= 8:
            return np.empty(0)
        content = read_content(path)
        values = decode(path, content, check_header(path, content)).reshape(-1, 3)
    except BadImageError:
        return np.empty(0)  # what opens the images says what is wrong with it
    picked = values[_spread(len(values), MEASURED_PIXELS)].astype(np.float64)
    if (picked == picked[:, :1]).all():
        picked = picked[:, :1]  # one channel, read as three
    return picked[np.isfinite(picked)]


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` positions among ``count``, spread evenly."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64))
