"""Augmentation against torchvision's transforms as the releases use them: the same draws in distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

pytest.importorskip("torchvision")

from PIL import Image
from references.authors_transforms import OURS, compare, make_picture
from torchvision import transforms

from vireid_lightning.data.images.augmentation import Augmentation, TrainTransform

DRAWS = 600

#: Shares of draws: of two samples of that many, the difference has a standard deviation of 0.029; 4 of them.
RATES = {"flip", "erased", "gray"}


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_draws_are_distributed_as_the_authors(name):
    for measure, (authors, ours) in compare(name, DRAWS).items():
        assert len(authors) > 0.4 * DRAWS, measure
        if measure == "fill":
            assert set(authors) == set(ours) == {float(OURS[name][0].pad_fill)}
        elif measure in RATES:
            assert abs(authors.mean() - ours.mean()) < 0.117, measure
        else:
            assert ks_2samp(authors, ours).pvalue > 0.01, measure
            assert abs(authors.mean() - ours.mean()) < 0.3 * max(authors.std(), ours.std()), measure


@pytest.mark.slow
def test_a_difference_is_found():
    """The test above has the power to see three tenths less area, half the padding or three quarters of the jitter."""
    found = compare("mpanet", DRAWS)
    area, shift = found["area"][0], found["shift down"][0]
    assert ks_2samp(area, 0.7 * area).pvalue < 0.01
    assert ks_2samp(shift, np.round(shift / 2)).pvalue < 0.01
    mean = compare("jitter", DRAWS)["mean"][0]
    assert ks_2samp(mean, mean.mean() + 0.75 * (mean - mean.mean())).pvalue < 0.01


def test_gray_levels_are_pillows():
    image = make_picture((96, 32))
    transform = TrainTransform(Augmentation(flip=0, pad=0, grayscale=1, erasing=0), (96, 32))
    wanted = np.asarray(transforms.Grayscale(3)(Image.fromarray(image))).astype(int)
    assert np.abs(transform(image, 0)[0] - wanted).max() <= 1
