from __future__ import annotations

import numpy as np
import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings, Protocol, Trial, score_protocols
from vireid_lightning.metrics.rank_lists import list_nearest, measure_pairs

IMAGES = 40


def few_values(seed=0):
    """Embeddings of few small whole numbers, so that many distances are equal and no product is rounded."""
    generator = np.random.default_rng(seed)
    embedding = torch.from_numpy(generator.integers(0, 2, (IMAGES, 4)).astype(np.float32)) + 1
    identity = generator.integers(-1, 5, IMAGES)
    return Embeddings(embedding, identity, generator.integers(-1, 4, IMAGES), generator.integers(0, 2, IMAGES))


def slow_list(embeddings, trial, query, removal, distance):
    """Return the ranked (position, distance) of one query, by a loop and Python's stable sort."""
    rows = embeddings.embedding.double()
    found = []
    for position in trial.gallery.tolist():
        same = embeddings.identity[query] == embeddings.identity[position] and embeddings.identity[query] >= 0
        cameras = int(embeddings.camera[query]), int(embeddings.camera[position])
        if removal == "sysu" and cameras == (3, 2):
            continue
        if removal == "same-camera" and same and cameras[0] == cameras[1] >= 0:
            continue
        if distance == "euclidean":
            value = float((rows[query] - rows[position]).norm())
        else:
            value = 1 - float(torch.nn.functional.cosine_similarity(rows[query], rows[position], dim=0))
        found.append((position, value))
    return sorted(found, key=lambda item: round(item[1], 5))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("removal", ["none", "sysu", "same-camera"])
def test_lists_are_those_of_a_stable_sort(distance, removal):
    embeddings, order = few_values(), np.random.default_rng(1).permutation(IMAGES)
    trial = Trial(order[:15], order[10:])
    protocol = Protocol("it", (trial,), removal)
    nearest = list_nearest(embeddings, embeddings, protocol, trial, trial.query, count=7, distance=distance)
    for row, query in enumerate(trial.query.tolist()):
        expected = slow_list(embeddings, trial, query, removal, distance)
        assert nearest.removed[row] == len(trial.gallery) - len(expected)
        # Cosines of equal directions may differ in their last digit, and then no longer tie.
        np.testing.assert_allclose(nearest.distance[row], [value for _, value in expected[:7]], atol=1e-6)
        if distance == "euclidean":
            assert nearest.position[row].tolist() == [position for position, _ in expected[:7]]
    assert nearest.removed.any() == (removal != "none")


@pytest.mark.parametrize("removal", ["none", "sysu", "same-camera"])
def test_a_whole_list_has_the_average_precision_and_first_rank_that_are_scored(removal):
    embeddings = few_values(3)
    trial = Trial(np.arange(0, IMAGES, 2), np.arange(1, IMAGES))
    protocol = Protocol("it", (trial,), removal)
    scores = score_protocols(embeddings, embeddings, [protocol], distance="euclidean")[0].trials[0]
    nearest = list_nearest(embeddings, embeddings, protocol, trial, trial.query, count=IMAGES, distance="euclidean")
    identity = embeddings.identity.numpy()
    own = identity[trial.query][:, None]
    right = (identity[nearest.position] == own) & (nearest.position >= 0) & (own >= 0)
    valid = right.any(axis=1)
    assert (valid == np.isfinite(scores.first)).all()
    assert 0 < valid.sum() < len(valid)
    precision = (right.cumsum(axis=1) / np.arange(1, IMAGES + 1) * right).sum(axis=1)[valid] / right.sum(axis=1)[valid]
    np.testing.assert_allclose(precision, scores.of_queries["mAP"][valid], rtol=1e-12)
    assert (1 + right.argmax(axis=1)[valid] == scores.first[valid]).all()


def test_a_short_gallery_ends_the_list():
    embeddings = Embeddings(torch.eye(3), [1, 1, 2])
    trial = Trial(np.array([0]), np.array([2, 1]))
    nearest = list_nearest(embeddings, embeddings, Protocol("it", (trial,)), trial, trial.query, count=4)
    assert nearest.position.tolist() == [[2, 1, -1, -1]]  # equally far, so in the gallery's order
    assert np.isnan(nearest.distance[0, 2:]).all()
    assert list_nearest(embeddings, embeddings, Protocol("it", (trial,)), trial, trial.query[:0]).position.shape == (
        0,
        10,
    )


def test_pairs_of_nobody_are_not_true():
    embeddings = Embeddings(torch.eye(3), [-1, -1, 2])
    trial = Trial(np.arange(3), np.arange(3))
    blocks = list(measure_pairs(embeddings, embeddings, Protocol("it", (trial,)), trial))
    assert blocks[0][1].tolist() == np.diag([False, False, True]).tolist()


def test_a_list_of_no_images_is_refused():
    embeddings = Embeddings(torch.eye(3), [1, 1, 2])
    trial = Trial(np.arange(3), np.arange(3))
    with pytest.raises(VIReIDError, match="count is 0"):
        list_nearest(embeddings, embeddings, Protocol("it", (trial,)), trial, trial.query, count=0)
