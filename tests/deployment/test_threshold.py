from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vireid_lightning.deployment import choose_thresholds, threshold
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings


def make(persons=30, images=4, spread=0.5, seed=0):
    """Images of persons by two cameras of each modality."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(persons).repeat_interleave(images)
    centre = torch.randn(persons, 8, generator=generator)
    rows = centre[identity] + spread * torch.randn(len(identity), 8, generator=generator)
    camera = torch.arange(len(identity)) % 4
    return Embeddings(rows, identity, camera, camera % 2, origin="the validation images")


def measure_slowly(data, rate, distance, kind, gallery_kinds):
    """Walk over every query and image."""
    rows = data.embedding.double()
    rows = torch.nn.functional.normalize(rows) if distance == "cosine" else rows
    other, own = [], []
    for q in range(len(data)):
        if data.modality[q] != kind:
            continue
        others, owns = [math.inf], [math.inf]
        for g in range(len(data)):
            if data.modality[g] not in gallery_kinds:
                continue
            value = float(1 - rows[q] @ rows[g] if distance == "cosine" else (rows[q] - rows[g]).norm())
            if data.identity[g] != data.identity[q]:
                others.append(value)
            elif g != q and data.camera[g] != data.camera[q]:
                owns.append(value)
        other.append(min(others))
        own.append(min(owns))
    limit = sorted(other)[math.floor(len(other) * rate)]
    return limit, np.mean([value < limit for value in other]), np.mean([v >= limit for v in own if v < math.inf])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("gallery_kinds", [(0,), (1,), (0, 1)])
def test_is_what_a_loop_over_all_pairs_finds(distance, gallery_kinds, monkeypatch):
    monkeypatch.setattr(threshold, "_QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(threshold, "_IMAGES_AT_ONCE", 11)
    data = make()
    found = choose_thresholds(data, 0.1, distance=distance, gallery_modalities=gallery_kinds)
    for kind, name in enumerate(("visible", "infrared")):
        expected = measure_slowly(data, 0.1, distance, kind, gallery_kinds)
        row = found[name]
        assert (row["threshold"], row["false_positive_rate"], row["miss_rate"]) == pytest.approx(expected, abs=1e-5)
        assert row["false_positive_rate"] <= 0.1
        assert (row["queries"], row["identities"]) == (60, 30)
    assert found["stated_rate"] == 0.1


def test_a_higher_rate_misses_fewer():
    rows = [choose_thresholds(make(spread=1.0), rate)["infrared"] for rate in (0.02, 0.2, 0.6)]
    limits, missed = ([row[name] for row in rows] for name in ("threshold", "miss_rate"))
    assert limits == sorted(limits)
    assert missed == sorted(missed, reverse=True)
    assert missed[0] > missed[-1]


def test_the_rate_holds_where_distances_are_equal():
    rows = torch.eye(4)[[0, 0, 0, 0, 1, 1, 1, 1]]
    data = Embeddings(rows, [0, 1, 2, 3, 4, 5, 6, 7], modality=[0, 1] * 4)
    found = choose_thresholds(data, 0.5)
    # Every nearest image of somebody else has the distance 0: nothing may be taken for found.
    assert found["visible"]["false_positive_rate"] == 0
    assert found["visible"]["miss_rate"] is None


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_a_share(rate):
    with pytest.raises(VIReIDError, match="give a finite number above 0 and below 1"):
        choose_thresholds(make(), rate)


def test_a_rate_needs_enough_queries():
    with pytest.raises(
        VIReIDError, match=r"has 60 visible queries .* a false positive rate of 0.001 needs at least 1000"
    ):
        choose_thresholds(make(), 0.001)


def test_identities_must_be_known():
    data = make()
    data.identity[3] = -1
    with pytest.raises(VIReIDError, match="1 of 120 images have no identity"):
        choose_thresholds(data)


def test_a_gallery_of_a_modality_that_no_image_has():
    data = make()
    data.modality[:] = 0
    with pytest.raises(VIReIDError, match="no image of a modality that the gallery has"):
        choose_thresholds(data, 0.1, gallery_modalities=(1,))
