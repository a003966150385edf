"""The removal rules that decide whether a protocol can be scored at all, against the plainest statement of them."""

from __future__ import annotations

import numpy as np
import pytest

from vireid_lightning.data import Sample
from vireid_lightning.data.datasets.protocol_building import SampleColumns, has_true_match
from vireid_lightning.protocols import Trial


@pytest.mark.parametrize("removal", ["none", "sysu", "same-camera"])
def test_has_true_match(removal):
    generator = np.random.default_rng(0)
    for _ in range(50):
        samples = [
            Sample(str(index), int(generator.integers(4)), index % 2, int(generator.choice([-1, 2, 3])))
            for index in range(12)
        ]
        trial = Trial(query=np.arange(1, 12, 2), gallery=generator.choice(np.arange(0, 12, 2), 3, replace=False))
        expected = [
            any(
                gallery.identity == query.identity
                and not (removal == "sysu" and (query.camera, gallery.camera) == (3, 2))
                and not (removal == "same-camera" and query.camera == gallery.camera != -1)
                for gallery in (samples[position] for position in trial.gallery)
            )
            for query in (samples[position] for position in trial.query)
        ]
        assert has_true_match(SampleColumns.of(samples), trial, removal).tolist() == expected


def test_no_samples_have_columns_too():
    assert SampleColumns.of([]).identity.shape == (0,)
