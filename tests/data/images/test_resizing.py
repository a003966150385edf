"""Resizing, against Pillow's of before 13: its two passes called one by one, width first."""

from __future__ import annotations

import typing
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from vireid_lightning.data.images.resizing import RESIZERS, Interpolation, resize_image

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
#: (height, width) of images and of results: shrinking, growing, one of each, single pixels, the papers' sizes.
SIZES = [
    ((600, 240), (384, 128)),
    ((600, 240), (288, 144)),
    ((128, 64), (384, 128)),
    ((128, 64), (288, 144)),  # ratios that meet many halves
    ((128, 64), (96, 48)),
    ((100, 37), (64, 51)),
    ((37, 100), (51, 64)),
    ((90, 40), (90, 20)),
    ((90, 40), (45, 40)),
    ((1, 1), (5, 7)),
    ((7, 5), (1, 1)),
    ((300, 200), (1, 9)),
    ((1, 50), (20, 3)),
    ((1500, 1100), (96, 48)),
]


def resize_by_pillow(image, size, interpolation):
    narrowed = Image.fromarray(image).resize((size[1], image.shape[0]), FILTERS[interpolation])
    return np.asarray(narrowed.resize(size[::-1], FILTERS[interpolation]))


def difference(image, size, interpolation):
    """The largest difference to Pillow in grey levels."""
    found = resize_image(image, size, interpolation)
    assert (found.shape, found.dtype) == ((*size, 3), np.uint8)
    assert found.flags.c_contiguous
    return np.abs(found.astype(int) - resize_by_pillow(image, size, interpolation)).max()


def draw_text(size):
    """Black on white, thin strokes: what an unfiltered kernel breaks."""
    page = np.full((*size, 3), 255, dtype=np.uint8)
    for line in range(size[0] // 14 + 1):
        cv2.putText(page, "Person 0815, camera 6", (2, 12 + 14 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
    return page


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_noise_and_text_come_out_as_pillows(size, wanted, interpolation):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    stripes = np.where(noise > 127, np.uint8(255), np.uint8(0))  # overshoots at every step
    for image in (noise, stripes, draw_text(size)):
        assert difference(image, wanted, interpolation) == 0


@pytest.mark.parametrize("interpolation", FILTERS)
def test_an_image_that_is_gray_in_all_but_a_pixel_keeps_its_colour(interpolation):
    image = np.random.default_rng(0).integers(0, 200, (60, 44, 1), dtype=np.uint8).repeat(3, axis=2)
    for channel in (0, 1, 2):
        coloured = image.copy()
        coloured[-1, -1, channel] += 50
        for one in (image, coloured):
            assert difference(one, (31, 50), interpolation) == 0


def test_any_ratio_comes_out_as_pillows():
    generator = np.random.default_rng(1)
    noise = generator.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for _ in range(150):
        size = generator.integers(1, 301, 2)
        wanted = tuple(int(side) for side in generator.integers(1, 301, 2))
        image, interpolation = noise[: size[0], : size[1]], list(FILTERS)[generator.integers(3)]
        assert difference(np.ascontiguousarray(image), wanted, interpolation) == 0


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photographs_come_out_as_pillows(name, interpolation):
    datasets = pytest.importorskip("sklearn.datasets")
    try:
        photograph = datasets.load_sample_image(name)
    except (OSError, ImportError, AttributeError):
        pytest.skip("scikit-learn's sample images are absent")
    person = np.ascontiguousarray(photograph[:, 200:400])
    for size in ((384, 128), (288, 144), (192, 64), (854, 400)):
        assert difference(person, size, interpolation) == 0
        # What this replaces was far off. Growing has nothing to filter, but Pillow's bicubic and Lanczos have other
        # coefficients than OpenCV's.
        if size[0] < 427:
            unfiltered = resize_image(person, size, f"opencv-{interpolation}").astype(int)
            assert np.abs(unfiltered - resize_by_pillow(person, size, interpolation)).max() > 30


@pytest.mark.parametrize("interpolation", RESIZERS)
def test_memory_of_any_layout(interpolation):
    image = np.random.default_rng(0).integers(0, 256, (60, 44, 3), dtype=np.uint8)
    frozen = image.copy()
    frozen.flags.writeable = False
    views = [image[:, ::-1], image[::-1], image[..., ::-1], image[::2, 1::3], image.transpose(1, 0, 2), frozen]
    for view in views:
        before = view.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = resize_image(view, (31, 17), interpolation)
        assert (found == resize_image(np.ascontiguousarray(view).copy(), (31, 17), interpolation)).all()
        assert (view == before).all()
        assert found.flags.writeable


@pytest.mark.parametrize("interpolation", RESIZERS)
def test_gray_stays_gray_and_flat_stays_flat(interpolation):
    gray = np.random.default_rng(0).integers(0, 256, (60, 44, 1), dtype=np.uint8).repeat(3, axis=2)
    found = resize_image(gray, (31, 50), interpolation)
    assert (found == found[..., :1]).all()
    for level in (0, 1, 127, 255):
        flat = np.full((60, 44, 3), level, dtype=np.uint8)
        assert (resize_image(flat, (31, 50), interpolation) == level).all()


@pytest.mark.parametrize("interpolation", RESIZERS)
def test_threads_do_not_disturb_each_other(interpolation):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (80 + n, 40, 3), dtype=np.uint8) for n in range(16)]
    alone = [resize_image(image, (48, 16), interpolation) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: resize_image(image, (48, 16), interpolation), images))
    assert all((one == other).all() for one, other in zip(alone, together))


@pytest.mark.parametrize("interpolation", RESIZERS)
def test_image_of_the_right_size_is_untouched(interpolation):
    image = np.zeros((90, 40, 3), dtype=np.uint8)
    assert resize_image(image, (90, 40), interpolation) is image


def test_the_names_of_opencv_are_its_kernels():
    image = np.random.default_rng(0).integers(0, 256, (60, 44, 3), dtype=np.uint8)
    for name, kernel in (("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC), ("area", cv2.INTER_AREA)):
        assert (
            resize_image(image, (31, 17), f"opencv-{name}") == cv2.resize(image, (17, 31), interpolation=kernel)
        ).all()


def test_every_interpolation_has_a_resizer():
    assert set(typing.get_args(Interpolation)) == set(RESIZERS)
