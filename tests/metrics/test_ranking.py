from __future__ import annotations

import numpy as np
import pytest
import torch
from references.ranking import score_queries

from vireid_lightning.metrics.ranking import BlockScorer, rank_order

REMOVALS, CURVES = ("none", "sysu", "same-camera"), ("image", "identity")


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def as_reference(identity, nobody):
    """The reference knows no unknown identities: give each a number that nobody else has."""
    return np.where(identity < 0, nobody - np.arange(len(identity)), identity)


@pytest.mark.parametrize("values", [3, 8, 10**6], ids=["many ties", "some ties", "few ties"])
@pytest.mark.parametrize("seed", range(40))
def test_equals_the_per_query_loop(values, seed):
    draw = np.random.default_rng(seed)
    queries, gallery, trials, people = draw.integers(1, [20, 60, 6, 12])
    distance = draw.integers(0, values, (queries, gallery)).astype(np.float32) - values // 2
    query_identity, gallery_identity = draw.integers(-1, people, queries), draw.integers(-1, people, gallery)
    query_camera, gallery_camera = draw.integers(-1, 6, queries), draw.integers(-1, 6, gallery)
    member = draw.random((gallery, trials)) < 0.6
    removal, cmc = draw.choice(REMOVALS, trials).tolist(), draw.choice(CURVES, trials).tolist()

    scorer = BlockScorer(*tensors(gallery_identity, gallery_camera, member), removal, cmc)
    scores = scorer(*tensors(distance, query_identity, query_camera))

    for trial in range(trials):
        kept = np.flatnonzero(member[:, trial])
        first, average_precision, inverse_negative_penalty = score_queries(
            distance[:, kept],
            as_reference(query_identity, -1000),
            as_reference(gallery_identity, -1)[kept],
            query_camera,
            gallery_camera[kept],
            removal[trial],
            cmc[trial],
        )
        np.testing.assert_array_equal(scores.first[:, trial], first)
        # A quotient of two whole numbers in float32 is off by at most 2^-24 of itself; the mean is taken in float64.
        np.testing.assert_allclose(scores.average_precision[:, trial], average_precision, rtol=2**-23)
        np.testing.assert_allclose(scores.inverse_negative_penalty[:, trial], inverse_negative_penalty, rtol=2**-50)


def test_order_breaks_ties_by_column_and_knows_negative_zero():
    distance = torch.tensor([[0.0, -1.5, -0.0, 2.0, -1.5, -3e-39, float(2**100)]])
    expected = [[1, 4, 5, 0, 2, 3, 6]]
    assert rank_order(distance).tolist() == expected
    assert rank_order(distance.double()).tolist() == expected


def score(distance, query_identity, gallery_identity, removal="none", cmc="image", cameras=None):
    gallery_camera = cameras or [1] * len(gallery_identity)
    scorer = BlockScorer(
        torch.tensor(gallery_identity),
        torch.tensor(gallery_camera),
        torch.ones(len(gallery_identity), 1, dtype=torch.bool),
        [removal],
        [cmc],
    )
    return scorer(torch.tensor([distance]), torch.tensor([query_identity]), torch.tensor([3]))


def test_a_ranking_done_by_hand():
    # Ranked: 8, 8, 7, 9, 7. Right images at ranks 3 and 5; one other identity stands ahead of the first.
    distance, gallery = [0.1, 0.2, 0.3, 0.4, 0.5], [8, 8, 7, 9, 7]
    images, identities = score(distance, 7, gallery), score(distance, 7, gallery, cmc="identity")
    assert (images.first.item(), identities.first.item()) == (3, 2)
    assert images.average_precision.item() == pytest.approx((1 / 3 + 2 / 5) / 2, rel=2**-23)
    assert images.inverse_negative_penalty.item() == 2 / 5


def test_queries_without_a_match():
    assert score([0.1, 0.2], 5, [7, 8]).first.item() == 0
    assert score([0.1, 0.2], -1, [-1, -1]).first.item() == 0
    assert score([0.1, 0.2], 7, [7, 8], removal="sysu", cameras=[2, 1]).first.item() == 0
    assert score([0.1, 0.2], 7, [7, 8], removal="same-camera", cameras=[3, 1]).first.item() == 0
    assert score([0.1, 0.2], 7, [7, 8], removal="same-camera", cmc="identity", cameras=[3, 1]).first.item() == 0


def test_reports_ties_of_right_images_only():
    assert score([0.1, 0.1, 0.3], 7, [7, 8, 9]).tied.item()
    assert not score([0.1, 0.3, 0.3], 7, [7, 8, 9]).tied.item()


def test_mixed_cameras_in_one_block_equal_separate_blocks():
    draw = np.random.default_rng(0)
    distance, camera = draw.standard_normal((12, 40), dtype=np.float32), np.arange(12) % 2 * 3 + 3
    identity, gallery_identity, gallery_camera = np.arange(12) % 4, np.arange(40) % 4, np.arange(40) // 4 % 5 + 1
    member = np.ones((40, 2), dtype=bool)
    scorer = BlockScorer(*tensors(gallery_identity, gallery_camera, member), ["sysu", "none"], ["identity", "image"])
    together = scorer(*tensors(distance, identity, camera))
    for row in range(12):
        alone = scorer(*tensors(distance[row : row + 1], identity[row : row + 1], camera[row : row + 1]))
        assert torch.equal(together.first[row], alone.first[0])
        assert torch.equal(together.average_precision[row], alone.average_precision[0])
