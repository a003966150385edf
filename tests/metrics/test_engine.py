from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from references.ranking import score_queries

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings, Protocol, Trial, engine, evaluate
from vireid_lightning.metrics.engine import rank_true_matches
from vireid_lightning.metrics.measures import MEASURES

REMOVALS, CURVES = ("none", "sysu", "same-camera"), ("image", "identity")


def as_reference(identity, nobody):
    """The reference knows no unknown identities: give each a number that nobody else has."""
    return np.where(identity < 0, nobody - np.arange(len(identity)), identity)


def answer(distance, query, gallery, protocol, block_bytes=2**20):
    """Return (Q, T) first rank (0: no true match), AP, INP and number of images seen, for distances that are given.

    ``query`` and ``gallery`` are identities and cameras.
    """
    queries = Embeddings(torch.zeros(len(query[0]), 1), *query)
    images = Embeddings(torch.zeros(len(gallery[0]), 1), *gallery)

    def block(asked, listed, known=None):
        return torch.from_numpy(distance[np.ix_(asked, listed)])

    shape = (len(protocol.trials[0].query), len(protocol.trials))
    found = [np.zeros(shape) for _ in range(4)]
    blocks = rank_true_matches(queries, images, protocol, protocol.trials, block, block_bytes=block_bytes)
    for places, matches in blocks:
        first = np.where(matches.number > 0, matches.first, 0)
        values = [MEASURES[name].of_queries(matches).nan_to_num() for name in ("mAP", "mINP")]
        for target, value in zip(found, (first, *values, matches.gallery)):
            target[places] = value
    return found


@pytest.mark.parametrize("values", [3, 8, 10**6], ids=["many ties", "some ties", "few ties"])
@pytest.mark.parametrize("seed", range(40))
def test_equals_the_per_query_loop(values, seed, monkeypatch):
    draw = np.random.default_rng(seed)
    queries, images, trials, people = draw.integers(1, [20, 60, 6, 12])
    monkeypatch.setattr(engine, "_SORTED_AT_ONCE", int(draw.choice([4, 512])))
    monkeypatch.setattr(engine, "_VALUES_AT_ONCE", int(draw.choice([50, 2**19])))
    if trials == 1:
        monkeypatch.setattr(engine, "WIDEST_CHUNK", int(draw.choice([1, 5, 2**15])))
    distance = draw.integers(0, values, (queries, images)).astype(np.float32) - np.float32(values // 2)
    query = draw.integers(-1, people, queries), draw.integers(-1, 6, queries)
    gallery = np.sort(draw.integers(-1, people, images)), draw.integers(-1, 6, images)
    if trials == 1:  # in any order
        gallery = tuple(part[draw.permutation(images)] for part in gallery)
    asked = draw.permutation(queries)[: draw.integers(1, queries + 1)]
    kept = [np.flatnonzero(draw.random(images) < 0.6) for _ in range(trials)]
    kept = [part if len(part) else np.array([0]) for part in kept]
    removal, cmc = str(draw.choice(REMOVALS)), str(draw.choice(CURVES))
    protocol = Protocol("drawn", tuple(Trial(asked, part) for part in kept), removal, cmc)
    found = answer(distance, query, gallery, protocol, block_bytes=int(draw.choice([1, 2**20])))
    for number, part in enumerate(kept):
        expected = score_queries(
            distance[np.ix_(asked, part)],
            as_reference(query[0], -1000)[asked],
            as_reference(gallery[0], -1)[part],
            query[1][asked],
            gallery[1][part],
            removal,
            cmc,
        )
        np.testing.assert_array_equal(found[0][:, number], expected[0])
        # Sums of at most 60 quotients in float64.
        np.testing.assert_allclose(found[1][:, number], expected[1], rtol=60 * 2**-52)
        np.testing.assert_allclose(found[2][:, number], expected[2], rtol=2**-50)


def hand(distance, identity, gallery, removal="none", cmc="image", cameras=None):
    """Answer one query, of camera 3, with one trial of the whole gallery."""
    count = len(gallery)
    protocol = Protocol("hand", (Trial(np.array([0]), np.arange(count)),), removal, cmc)
    query = np.array([identity]), np.array([3])
    images = np.array(gallery), np.array(cameras or [1] * count)
    return [part.item() for part in answer(np.array([distance], dtype=np.float32), query, images, protocol)]


def test_a_ranking_done_by_hand():
    # Ranked: 8, 8, 7, 9, 7. True matches at ranks 3 and 5; one other identity stands ahead of the first.
    distance, gallery = [0.1, 0.2, 0.3, 0.4, 0.5], [8, 8, 7, 9, 7]
    first, average_precision, inverse_negative_penalty, seen = hand(distance, 7, gallery)
    assert (first, seen) == (3, 5)
    assert average_precision == pytest.approx((1 / 3 + 2 / 5) / 2, rel=2**-50)
    assert inverse_negative_penalty == 2 / 5
    assert hand(distance, 7, gallery, cmc="identity")[0] == 2


def test_queries_without_a_match():
    assert hand([0.1, 0.2], 5, [7, 8])[0] == 0
    assert hand([0.1, 0.2], -1, [-1, -1])[0] == 0
    assert hand([0.1, 0.2], 7, [7, 8], removal="sysu", cameras=[2, 1])[0] == 0
    assert hand([0.1, 0.2], 7, [7, 8], removal="sysu", cameras=[2, 2])[0] == 0  # sees nothing at all
    assert hand([0.1, 0.2], 7, [7, 8], removal="same-camera", cameras=[3, 1])[0] == 0
    assert hand([0.1, 0.2], 7, [7, 8], removal="same-camera", cmc="identity", cameras=[3, 1])[0] == 0


def test_counts_the_images_that_a_query_sees():
    assert hand([0.1, 0.2, 0.3], 7, [7, 8, 7], removal="sysu", cameras=[1, 2, 1])[3] == 2
    assert hand([0.1, 0.2, 0.3], 7, [7, 8, 7], removal="same-camera", cameras=[1, 3, 3])[3] == 2


@pytest.mark.parametrize("distance", [[0.0, -0.0], [-0.0, 0.0], [-3e-39, -3e-39], [float(2**100)] * 2, [-1.5, -1.5]])
def test_ties_go_to_the_image_that_is_listed_first(distance):
    assert hand(distance, 7, [7, 8])[0] == 1
    assert hand(distance, 7, [8, 7])[0] == 2
    assert hand(distance, 7, [8, 7], cmc="identity")[0] == 2


def test_orders_numbers_of_every_size_and_sign():
    distance = [2.0, -(2.0**100), 1e-38, 0.0, -1e-38, 2.0**100, -3.0]
    for place, value in enumerate(distance):
        gallery = [8] * len(distance)
        gallery[place] = 7
        assert hand(distance, 7, gallery)[0] == 1 + sum(other < value for other in distance)


IMAGES, QUERIES, IDENTITIES = 900, 60, 25


def sets(values, seed=0):
    draw = np.random.default_rng(seed)
    make = lambda count: (  # noqa: E731
        draw.integers(-values, values + 1, (count, 6)).astype(np.float32),
        draw.integers(-1, IDENTITIES, count),
        draw.integers(-1, 7, count),
    )
    return make(QUERIES), make(IMAGES)


@pytest.fixture
def in_chunks(monkeypatch):
    """Return a function that scores a gallery in narrow chunks."""

    def score(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "WIDEST_CHUNK", 70)
            return evaluate(*arguments, **options)

    return score


@pytest.mark.parametrize("values", [1, 3, 100], ids=["nearly all tie", "many ties", "few ties"])
@pytest.mark.parametrize("cmc", CURVES)
@pytest.mark.parametrize("removal", REMOVALS)
def test_chunks_change_nothing(in_chunks, values, cmc, removal):
    query, gallery = sets(values)
    # Whole numbers: products are exact in float32 whatever the block.
    arguments = {"removal": removal, "cmc": cmc, "distance": "euclidean"}
    assert in_chunks(query, gallery, **arguments).to_dict() == evaluate(query, gallery, **arguments).to_dict()


def test_a_gallery_in_its_own_order_and_memory_mapped(in_chunks, tmp_path):
    query, (embedding, identity, camera) = sets(2)
    np.save(tmp_path / "gallery.npy", embedding)
    gallery = Embeddings(np.load(tmp_path / "gallery.npy", mmap_mode="r"), identity, camera)
    assert isinstance(gallery.embedding, np.memmap)
    order = np.random.default_rng(3).permutation(IMAGES)[:700]
    protocol = Protocol("drawn", (Trial(np.arange(QUERIES), order),), "same-camera", "identity")
    found = in_chunks(query, gallery, protocol, distance="euclidean").to_dict()
    assert found == evaluate(query, (embedding, identity, camera), protocol, distance="euclidean").to_dict()


def test_trials_whose_galleries_fit_together_into_no_chunk(in_chunks):
    query, gallery = sets(2)
    by_identity = np.argsort(gallery[1], kind="stable")
    trials = tuple(Trial(np.arange(QUERIES), by_identity[start::3]) for start in range(3))
    protocol = Protocol("thirds", trials, "sysu", "identity")
    found = in_chunks(query, gallery, protocol, distance="euclidean").to_dict()
    expected = evaluate(query, gallery, protocol, distance="euclidean").to_dict()
    # Sums of up to 36 quotients, and means of 60 of them, which may be added up in another order.
    assert found["scores"] == pytest.approx(expected["scores"], rel=100 * 2**-53)


def test_cosine_in_chunks(in_chunks):
    query, gallery = sets(100)
    found, expected = in_chunks(query, gallery), evaluate(query, gallery)
    # Blocks of other sizes may round a product differently: one of 60 queries may change places.
    assert found.to_dict()["scores"] == pytest.approx(expected.to_dict()["scores"], abs=100 / 60)


@pytest.mark.parametrize("block_mb", [1, 64])
def test_one_block_or_many(in_chunks, block_mb):
    query, gallery = sets(3)
    found = in_chunks(query, gallery, distance="euclidean", block_mb=block_mb).to_dict()
    assert found == evaluate(query, gallery, distance="euclidean", block_mb=256).to_dict()


def test_an_identity_larger_than_a_chunk(monkeypatch):
    monkeypatch.setattr(engine, "WIDEST_CHUNK", 4)
    identity = [1] * 9 + [2] * 3 + [3]
    embedding = torch.arange(13.0)[:, None]
    scores = evaluate((torch.tensor([[12.0]]), [1]), (embedding, identity), distance="euclidean", cmc="identity")
    assert (scores.trials[0].first.tolist(), scores.trials[0].valid_queries) == ([3], 1)


def test_a_gallery_of_several_chunks_of_full_size():
    count = engine.WIDEST_CHUNK + 5
    identity = torch.arange(count) // 4
    embedding = torch.nn.functional.one_hot(identity % 8, 8).float()
    scores = evaluate((torch.eye(8), range(8)), (embedding, identity), distance="euclidean")
    # Each query ties with an eighth of the gallery, of which its own four images stand first.
    assert (scores.rank1, scores.mAP, scores.mINP) == (100, 100, 100)


def test_nobody_to_be_found_is_an_error(in_chunks):
    with pytest.raises(VIReIDError, match="none of the 2 queries"):
        in_chunks((torch.eye(2), [-1, 70]), (torch.eye(2).repeat(40, 1), [-1] * 80))


@pytest.mark.parametrize("cmc", CURVES)
def test_one_large_identity_among_many_strangers_takes_no_memory_of_both(cmc):
    """A table of 20,000 identities by 10,000 images would take 1.6 GB."""
    identity = np.concatenate([np.zeros(10_000, dtype=np.int64), np.arange(1, 10_001), np.full(10_000, -1)])
    draw = np.random.default_rng(0)
    gallery = draw.integers(-9, 10, (len(identity), 2)).astype(np.float32)
    query = draw.integers(-9, 10, (3, 2)).astype(np.float32)
    tracemalloc.start()
    scores = evaluate((query, [0, 5, -1]), (gallery, identity), distance="euclidean", cmc=cmc)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # NumPy's memory; 2.4 MB for each number of an image
    distance = (gallery**2).sum(1)[None] - 2 * query @ gallery.T
    expected = score_queries(
        distance, np.array([0, 5, -9]), as_reference(identity, -10), np.full(3, -1), identity, "none", cmc
    )
    np.testing.assert_array_equal(np.where(np.isfinite(scores.trials[0].first), scores.trials[0].first, 0), expected[0])
    np.testing.assert_allclose(scores.trials[0].of_queries["mAP"][:2], expected[1][:2], rtol=10_000 * 2**-52)


def test_a_skipped_image_ranks_behind_an_infinite_distance():
    # The true match overflows; the skipped image is listed before it.
    first, average_precision, _, seen = hand([np.inf, np.inf, 0.5], 7, [7, 7, 8], "same-camera", cameras=[3, 1, 1])
    assert (first, average_precision, seen) == (2, 0.5, 2)
