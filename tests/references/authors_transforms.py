"""The releases' transforms, in torchvision as their authors wrote them, and measures of what a transform draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from vireid_lightning.data.images.augmentation import PIPELINES, Augmentation, TrainTransform
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

#: What an image becomes: its levels, and a mask of the pixels that are exactly 0 after normalisation and erasing.
Drawn = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def authors_steps(name: str, size: tuple[int, int]) -> tuple[list[Callable], list[Callable]]:
    """Return a release's steps on a Pillow image, and those on the normalised tensor."""
    flip = transforms.RandomHorizontalFlip()
    if name == "mpanet":
        padded = [flip, transforms.Pad(10, fill=127), transforms.RandomCrop(size)]
        return padded, [transforms.RandomErasing()]
    if name == "agw":
        return [transforms.Pad(10), transforms.RandomCrop(size), flip], []
    if name == "dclnet":
        return [transforms.RandomGrayscale(p=0.5), flip], [transforms.RandomErasing(p=0.5)]
    if name == "jitter":  # that of CMAM's visible images, alone
        return [transforms.ColorJitter(brightness=0.2, contrast=0.15)], []
    raise KeyError(name)


#: The same in this package, and the size of images.
OURS: dict[str, tuple[Augmentation, tuple[int, int]]] = {
    "mpanet": (PIPELINES["mpanet"], (384, 128)),
    "agw": (PIPELINES["agw"], (288, 144)),
    "dclnet": (PIPELINES["dclnet"], (288, 144)),
    "jitter": (Augmentation(0, 0, jitter=1, brightness=0.2, contrast=0.15, saturation=0, erasing=0), (96, 32)),
}


def draw_authors(name: str, image: NDArray[np.uint8], count: int) -> list[Drawn]:
    """Return draws of the release's transforms, from torch's own generator with seed 0."""
    first, last = authors_steps(name, image.shape[:2])
    first_step, source = transforms.Compose(first), Image.fromarray(image)
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    drawn = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(count):
            moved = first_step(source)
            tensor = normalise(moved)
            for step in last:
                tensor = step(tensor)
            drawn.append((np.asarray(moved), (tensor == 0).all(0).numpy()))
    return drawn


def draw_ours(transform: TrainTransform, image: NDArray[np.uint8], count: int) -> list[Drawn]:
    """Return draws of a transform of this package with the seeds 0, 1, 2, ..."""
    return [transform(image, seed) for seed in range(count)]


def make_coordinates(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image whose pixels say where they are: half the row, the column, and 200."""
    rows, columns = np.indices(size)
    return np.stack([rows // 2, columns, np.full(size, 200)], axis=2).astype(np.uint8)


def measure_place(drawn: Drawn, image: NDArray[np.uint8]) -> dict[str, float]:
    """Return flip and shift of an image of coordinates, and the levels of what padding added, from unerased pixels."""
    levels, erased = drawn
    inside = (levels[:, :, 2] == 200) & ~erased
    border = levels[(levels[:, :, 2] != 200) & ~erased]
    rows, columns = np.nonzero(inside)
    steps = levels[:, :, 1].astype(int)
    pairs = inside[:, 1:] & inside[:, :-1]
    flipped = (steps[:, 1:] - steps[:, :-1])[pairs].mean() < 0
    column = levels[rows[0], columns[0], 1]
    width = image.shape[1]
    return {
        "flip": float(flipped),
        "shift down": float(np.median(rows - 2 * levels[rows, columns, 0].astype(int))),
        "shift right": float(columns[0] - (width - 1 - column if flipped else column)),
        "fill": float(np.median(border)) if len(border) else np.nan,
    }


def measure_flip(drawn: Drawn) -> dict[str, float]:
    """Return whether an image of coordinates is mirrored, from pixels that are not erased; gray ones tell it too."""
    levels, erased = drawn
    steps = levels[:, 1:, 1].astype(int) - levels[:, :-1, 1]
    return {"flip": float(steps[~erased[:, 1:] & ~erased[:, :-1]].mean() < 0)}


def measure_rectangle(drawn: Drawn) -> dict[str, float]:
    """Return the rectangle that is exactly 0, as shares of the image; NaN where there is none."""
    erased = drawn[1]
    if not erased.any():
        return {"erased": 0.0} | dict.fromkeys(("area", "height / width", "top", "left"), np.nan)
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    return {
        "erased": 1.0,
        "area": float(erased.mean()),
        "height / width": len(rows) / len(columns),
        "top": rows[0] / erased.shape[0],
        "left": columns[0] / erased.shape[1],
    }


def measure_gray(drawn: Drawn) -> dict[str, float]:
    """Return whether all channels are equal."""
    return {"gray": float((drawn[0] == drawn[0][..., :1]).all())}


def measure_levels(drawn: Drawn) -> dict[str, float]:
    """Return mean and deviation of the levels."""
    return {"mean": float(drawn[0].mean()), "deviation": float(drawn[0].std())}


def collect(rows: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Return the values of each measure, without NaN."""
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    return {name: values[~np.isnan(values)] for name, values in columns.items()}


def compare(name: str, count: int) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return each measure of a number of draws: the authors' values, and ours."""
    augmentation, size = OURS[name]
    image = make_picture(size) if name == "jitter" else make_coordinates(size)
    both = draw_authors(name, image, count), draw_ours(TrainTransform(augmentation, size), image, count)
    measures: list[Callable[[Drawn], dict[str, float]]] = []
    if augmentation.jitter:
        measures.append(measure_levels)
    if augmentation.grayscale:
        measures.append(measure_gray)
    if augmentation.pad:
        measures.append(lambda drawn: measure_place(drawn, image))
    elif augmentation.flip:
        measures.append(measure_flip)
    if augmentation.erasing:
        measures.append(measure_rectangle)
    authors, ours = (collect([{k: v for m in measures for k, v in m(one).items()} for one in draws]) for draws in both)
    return {key: (authors[key], ours[key]) for key in authors}


def make_picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return smooth colours of all levels."""
    rows, columns = np.indices(size) / np.array(size)[:, None, None]
    return (np.stack([rows, columns, 1 - rows * columns], axis=2) * 235 + 10).astype(np.uint8)
