from __future__ import annotations

import pickle

import numpy as np
import pytest
from references.albumentations_steps import augment_by_albumentations

from vireid_lightning.data.images.augmentation import PIPELINES, Augmentation, TrainTransform
from vireid_lightning.errors import VIReIDError

SIZE = (96, 32)
NOTHING = {"flip": 0, "pad": 0, "erasing": 0}
EVERYTHING = {
    "flip": 0.5,
    "pad": 4,
    "jitter": 0.5,
    "grayscale": 0.3,
    "channel_exchange": 0.3,
    "channel_erasing": 0.5,
    "erasing": 0.5,
}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (*SIZE, 3), dtype=np.uint8)


def transform(**settings):
    return TrainTransform(Augmentation(**{**NOTHING, **settings}), SIZE)


@pytest.mark.parametrize("name", PIPELINES)
def test_named_pipelines_keep_size_and_type(name, image):
    for seed in range(20):
        result, erased = TrainTransform(PIPELINES[name], SIZE)(image, seed)
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        assert erased.shape == SIZE
        assert erased.dtype == bool


def test_none_changes_nothing(image):
    result, erased = TrainTransform(PIPELINES["none"], SIZE)(image, 1)
    assert (result == image).all()
    assert not erased.any()


@pytest.mark.parametrize(
    "settings",
    [
        *PIPELINES.values(),
        Augmentation(**EVERYTHING),
        Augmentation(flip=1, pad=50, pad_fill=0, jitter=1, grayscale=0.5, channel_exchange=1, erasing_area=(0.5, 0.99)),
    ],
)
def test_a_seed_gives_what_albumentations_gives(settings, image):
    image.flags.writeable = False  # as a cached one
    step = TrainTransform(settings, SIZE)
    for seed in (*range(25), 2**40 + 5):
        for found, wanted in zip(step(image, seed), augment_by_albumentations(settings, image, seed)):
            assert (found == wanted).all()
            assert found.dtype == wanted.dtype


def test_draws_follow_from_the_seed_alone(image):
    one, other = transform(**EVERYTHING), transform(**EVERYTHING)
    for seed in range(5):
        other(image, 1000 + seed)  # a history of its own
    results = [one(image, seed) for seed in range(30)]
    for seed in reversed(range(30)):
        for expected, found in zip(results[seed], other(image, seed)):
            assert (expected == found).all()
    assert len({result.tobytes() for result, _ in results}) > 25


def test_survives_pickling(image):
    original = transform(flip=0.5, erasing=0.5)
    copy = pickle.loads(pickle.dumps(original))
    assert all((original(image, seed)[0] == copy(image, seed)[0]).all() for seed in range(10))


def test_flip(image):
    assert (transform(flip=1)(image, 0)[0] == image[:, ::-1]).all()


def test_pad_and_crop_shift_the_image_and_fill_the_border(image):
    shifts = set()
    for seed in range(40):
        result, _ = transform(pad=3, pad_fill=0)(image, seed)
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
        found = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if (padded[top : top + SIZE[0], left : left + SIZE[1]] == result).all()
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 20


def test_erasing_marks_exactly_what_it_blanks(image):
    for seed in range(50):
        result, erased = transform(erasing=1)(image, seed)
        assert (result[erased] == 0).all()
        assert (result[~erased] == image[~erased]).all()
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)
        assert np.ptp(rows) == len(rows) - 1
        assert np.ptp(columns) == len(columns) - 1


def test_erasing_reaches_the_papers_areas(image):
    areas = np.array([transform(erasing=1)(image, seed)[1].mean() for seed in range(400)])
    # The sides are rounded to whole pixels of at least about 6, so an area is off by less than a sixth.
    assert areas[areas > 0].min() > 0.02 * 5 / 6
    assert areas.max() < 0.33 * 7 / 6
    # Rectangles wider than the image are drawn anew, which favours small ones; yet a fifth are above 0.2. Were all
    # areas lowered until any ratio fits, the largest would be 32 / 96 / 3.3 = 0.1.
    assert (areas > 0.2).mean() > 0.2


def test_flip_and_erasing_are_independent(image):
    both = [transform(flip=0.5, erasing=0.5)(image, seed) for seed in range(400)]
    flipped = np.array([(result == image[:, ::-1])[~erased].all() for result, erased in both])
    blanked = np.array([erased.any() for _, erased in both])
    # 400 fair draws: a standard deviation of the correlation is 1 / 20; 5 of them.
    assert abs(np.corrcoef(flipped, blanked)[0, 1]) < 0.25
    # Erasing finds no fitting rectangle in ten tries in about 1 of 10^4 images.
    assert abs(flipped.mean() - 0.5) < 0.125
    assert abs(blanked.mean() - 0.5) < 0.125


def test_erasing_survives_no_later_step(image):
    """Erasing comes last: nothing may fill, move or mix into blanked pixels."""
    for seed in range(30):
        result, erased = transform(**{**EVERYTHING, "erasing": 1})(image, seed)
        assert (result[erased] == 0).all()


def test_channel_erasing_fills_each_channel_and_is_not_counted_as_erased(image):
    result, erased = transform(channel_erasing=1)(image, 0)
    assert not erased.any()
    changed = (result != image).any(2)
    assert changed.any()
    assert (result[changed] == (152, 144, 129)).all()


def test_channel_exchange_keeps_one_channel(image):
    kept = set()
    for seed in range(30):
        result, _ = transform(channel_exchange=1)(image, seed)
        kept |= {channel for channel in range(3) if (result == image[:, :, channel : channel + 1]).all()}
    assert kept == {0, 1, 2}


def test_colour_steps_leave_infrared_images_alone():
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (*SIZE, 1), dtype=np.uint8), 3, axis=2)
    assert (transform(grayscale=1, channel_exchange=1)(image, 0)[0] == image).all()


def test_grayscale_is_the_luminance(image):
    result, _ = transform(grayscale=1)(image, 0)
    # Rounding to a whole grey value and 15-bit weights.
    assert np.abs(result - (image @ np.array([0.299, 0.587, 0.114]))[..., None]).max() <= 1


def test_jitter_moves_brightness_within_its_range():
    image = np.full((*SIZE, 3), 100, dtype=np.uint8)
    values = {int(transform(jitter=1, contrast=0, saturation=0)(image, seed)[0].max()) for seed in range(40)}
    assert 79 <= min(values) < 90
    assert 110 < max(values) <= 121


@pytest.mark.parametrize(
    "settings",
    [{"flip": 2}, {"pad": -1}, {"pad_fill": 256}, {"erasing_area": (0.3, 0.2)}, {"erasing_ratio": (0, 1)}],
)
def test_values_out_of_range_are_refused(settings):
    with pytest.raises(VIReIDError, match=next(iter(settings))):
        Augmentation(**settings).check()


def test_unknown_pipeline_names_the_nearest():
    with pytest.raises(VIReIDError, match="Did you mean 'dclnet'"):
        Augmentation.named("dclnett")
