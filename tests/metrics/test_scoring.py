from __future__ import annotations

import numpy as np
import pytest
import torch
from references.ranking import score_queries
from references.re_ranking import re_rank as slow_re_rank

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings, Protocol, ReRanking, Trial, evaluate, score_protocols

IMAGES, IDENTITIES, SIZE = 400, 15, 6


def labels(seed=0):
    """Return identity and camera of images in the structure of SYSU-MM01: cameras 3 and 6 infrared."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, IDENTITIES, IMAGES), np.sort(draw.integers(1, 7, IMAGES))


def whole_numbers(seed=0, values=4):
    """Return embeddings of few small whole numbers: every product is exact in float32, and many distances tie."""
    return np.random.default_rng(seed).integers(-values, values + 1, (IMAGES, SIZE)).astype(np.float32)


def sysu_like_protocols(identity, camera, trials=3):
    draw = np.random.default_rng(1)
    query = np.flatnonzero((camera == 3) | (camera == 6))
    protocols = []
    for name, cameras in (("all", (1, 2, 4, 5)), ("indoor", (1, 2))):
        for shots in (1, 4):
            galleries = []
            for _ in range(trials):
                gallery = []
                for who in range(IDENTITIES):
                    for where in cameras:
                        gallery += draw.permutation(np.flatnonzero((identity == who) & (camera == where)))[
                            :shots
                        ].tolist()
                galleries.append(np.array(gallery))
            built = tuple(Trial(query, gallery) for gallery in galleries)
            protocols.append(Protocol(f"{name}/{shots}", built, "sysu", "identity"))
    return protocols


def other_protocols(identity, camera):
    """Return both directions with images counted, and LLCM-like ones, in galleries that are in no order at all."""
    draw = np.random.default_rng(2)
    infrared = np.flatnonzero((camera == 3) | (camera == 6))
    visible = np.setdiff1d(np.arange(IMAGES), infrared)
    return [
        Protocol("visible-to-infrared", (Trial(visible, draw.permutation(infrared)),)),
        Protocol("infrared-to-visible", (Trial(infrared, draw.permutation(visible)),)),
        Protocol(
            "same-camera",
            tuple(Trial(np.arange(IMAGES), draw.permutation(IMAGES)[:200]) for _ in range(3)),
            "same-camera",
            "identity",
        ),
        Protocol("same-camera/image", (Trial(np.arange(IMAGES), draw.permutation(IMAGES)),), "same-camera", "image"),
    ]


def reference(distance, identity, camera, protocol):
    """Return mean and deviation over trials of Rank-1, -5, -10, -20, mAP and mINP in per cent, and valid queries."""
    rows, valid = [], []
    for trial in protocol.trials:
        query, gallery = trial.query, trial.gallery
        block = (
            distance[np.ix_(query, gallery)] if callable(getattr(distance, "any", None)) else distance(query, gallery)
        )
        first, average_precision, inverse_negative_penalty = score_queries(
            block, identity[query], identity[gallery], camera[query], camera[gallery], protocol.removal, protocol.cmc
        )
        matched = first > 0
        valid.append(int(matched.sum()))
        curve = [(first[matched] <= rank).mean() for rank in (1, 5, 10, 20)]
        rows.append([*curve, average_precision[matched].mean(), inverse_negative_penalty[matched].mean()])
    return 100 * np.mean(rows, axis=0), 100 * np.std(rows, axis=0, ddof=1) if len(rows) > 1 else None, valid


def assert_equal(row, expected):
    mean, deviation, valid = expected
    # Counts and ranks are exact; quotients and means are in float64, of up to 400 values each.
    np.testing.assert_allclose(list(row.to_dict()["scores"].values()), mean, rtol=400 * 2**-52)
    if deviation is not None:
        np.testing.assert_allclose(list(row.to_dict()["deviation"].values()), deviation, rtol=0, atol=100 * 2**-40)
    assert [trial.valid_queries for trial in row.trials] == valid


@pytest.mark.parametrize("block_mb", [1, 64])
@pytest.mark.parametrize("values", [1, 4, 300], ids=["nearly all tie", "many ties", "few ties"])
def test_every_protocol_equals_the_per_query_loop(values, block_mb):
    identity, camera = labels()
    embedding = whole_numbers(values=values)
    distance = (embedding**2).sum(1)[None, :] - 2 * embedding @ embedding.T
    protocols = sysu_like_protocols(identity, camera) + other_protocols(identity, camera)
    embeddings = Embeddings(embedding, identity, camera)
    rows = score_protocols(embeddings, embeddings, protocols, distance="euclidean", block_mb=block_mb)
    for protocol, row in zip(protocols, rows):
        assert_equal(row, reference(distance, identity, camera, protocol))


def test_cosine_equals_the_per_query_loop():
    identity, camera = labels()
    embedding = whole_numbers(values=300)
    unit = torch.nn.functional.normalize(torch.from_numpy(embedding)).double().numpy()
    protocols = sysu_like_protocols(identity, camera)
    embeddings = Embeddings(torch.from_numpy(embedding).double(), identity, camera)
    for protocol, row in zip(protocols, score_protocols(embeddings, embeddings, protocols)):
        assert_equal(row, reference(-(unit @ unit.T), identity, camera, protocol))


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 64, 512])
@pytest.mark.parametrize("different", [1, 7, 150])
@pytest.mark.parametrize("queries", [1, 3, 100])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_equal_embeddings_tie_whatever_a_product_makes_of_them(size, different, queries, in_chunks, monkeypatch):
    """A product may round the distances to equal images differently, by their place in it."""
    identity, camera = labels()
    query = np.arange(queries)
    draw = np.random.default_rng(size)
    rows = draw.standard_normal((different, size), dtype=np.float32)
    which = draw.integers(0, different, IMAGES)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    distance = -(unit @ unit.T)[which][:, which]
    scale = 2.0 ** draw.integers(-20, 20, (IMAGES, 1)).astype(np.float32)  # changes no digit of a normalised row
    embeddings = Embeddings(rows[which] * scale, identity, camera)
    if in_chunks:
        monkeypatch.setattr("vireid_lightning.metrics.engine.WIDEST_CHUNK", 50)
    protocols = [
        Protocol(f"{removal}/{cmc}", (Trial(query, draw.permutation(IMAGES)),), removal, cmc)
        for removal in ("none", "sysu", "same-camera")
        for cmc in ("image", "identity")
    ]
    for protocol, row in zip(protocols, score_protocols(embeddings, embeddings, protocols)):
        assert_equal(row, reference(distance, identity, camera, protocol))


@pytest.mark.slow
def test_re_ranked_rows_stand_apart_and_equal_the_slow_definition():
    identity, camera = labels()
    embedding = np.random.default_rng(0).standard_normal((IMAGES, SIZE), dtype=np.float32)
    embedding += 2 * np.random.default_rng(1).standard_normal((IDENTITIES, SIZE), dtype=np.float32)[identity]
    unit = torch.nn.functional.normalize(torch.from_numpy(embedding)).numpy()
    protocols = sysu_like_protocols(identity, camera, trials=1)
    embeddings = Embeddings(embedding, identity, camera)
    plain = score_protocols(embeddings, embeddings, protocols)
    rows = score_protocols(embeddings, embeddings, protocols, rerank=True)
    assert [row.to_dict() for row in rows[:4]] == [row.to_dict() for row in plain]
    for protocol, row in zip(protocols, rows[4:]):
        assert row.name == f"{protocol.name} (re-ranked)"
        assert row.to_dict()["reranking"] == {"k1": 20, "k2": 6, "lambda_value": 0.3}
        assert_equal(
            row, reference(lambda query, gallery: slow_re_rank(unit[query], unit[gallery]), identity, camera, protocol)
        )


def test_the_order_of_the_gallery_does_not_matter_without_ties():
    identity, camera = labels()
    embedding = torch.randn(IMAGES, SIZE)
    query, shuffled = torch.randperm(IMAGES)[:100], torch.randperm(IMAGES)
    asked = embedding[query], identity[query], camera[query]
    first = evaluate(asked, (embedding, identity, camera), removal="same-camera")
    second = evaluate(asked, (embedding[shuffled], identity[shuffled], camera[shuffled]), removal="same-camera")
    assert first.to_dict()["scores"] == pytest.approx(second.to_dict()["scores"], rel=1e-12)


def test_scaling_embeddings_does_not_matter_under_cosine():
    identity, camera = labels()
    embedding = torch.randn(IMAGES, SIZE)
    scale = 2.0 ** torch.randint(-6, 7, (IMAGES, 1))  # powers of two scale float32 exactly
    first = evaluate((embedding, identity, camera), (embedding, identity, camera), removal="same-camera")
    second = evaluate(
        (scale * embedding, identity, camera), (embedding / scale, identity, camera), removal="same-camera"
    )
    assert first.to_dict()["scores"] == second.to_dict()["scores"]


def test_rank_20_of_a_gallery_of_three_identities_is_the_last_value():
    embedding = torch.eye(4)[[0, 1, 2, 3]]
    scores = evaluate((embedding[:3], [0, 1, 2]), (embedding[[1, 2, 0]], [0, 1, 2]), cmc="identity")
    listed = scores.to_dict()["scores"]
    assert listed["rank5"] == listed["rank10"] == listed["rank20"] == 100
    assert listed["rank1"] < 100


def test_queries_without_a_match_are_left_out_and_counted():
    embedding = torch.eye(4)
    scores = evaluate((embedding, [0, 1, 8, -1]), (embedding, [0, 1, 2, -1]))
    assert (scores.trials[0].queries, scores.trials[0].valid_queries) == (4, 2)
    assert scores.rank1 == 100


def test_names_the_protocol_that_removes_everything():
    trial = Trial(np.array([0]), np.array([1, 2]))
    embeddings = Embeddings(torch.eye(3), [5, 5, 5], [1, 1, 1])
    with pytest.raises(VIReIDError, match="mine: none of the 1 queries"):
        evaluate(embeddings, embeddings, Protocol("mine", (trial,), "same-camera"))


def test_two_sets_of_different_trials_share_nothing_but_the_table():
    """Trials with queries of their own are scored apart."""
    identity, camera = labels()
    embedding = whole_numbers()
    distance = (embedding**2).sum(1)[None, :] - 2 * embedding @ embedding.T
    trials = tuple(Trial(np.arange(start, IMAGES, 3), np.arange(IMAGES)) for start in range(3))
    protocol = Protocol("thirds", trials, "same-camera", "identity")
    embeddings = Embeddings(embedding, identity, camera)
    row = score_protocols(embeddings, embeddings, [protocol], distance="euclidean")[0]
    assert_equal(row, reference(distance, identity, camera, protocol))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: evaluate(e, e, distance="l1"), "'l1' is unknown; choose one of cosine, euclidean"),
        (lambda e: evaluate(e, (torch.eye(4), [1, 2, 3, 4])), "4"),
        (lambda e: evaluate(e, e, removal="all"), "removal is 'all'"),
        (
            lambda e: evaluate(e, e, Protocol("far", (Trial(np.array([0]), np.array([3])),))),
            "far: .* 3 .* only|3 embeddings",
        ),
        (
            lambda e: evaluate(e, e, Protocol("void", (Trial(np.array([0]), np.array([], dtype=int)),))),
            "void: .* no gallery",
        ),
        (
            lambda e: evaluate(e, e, Protocol("twice", (Trial(np.array([0]), np.array([1, 1])),))),
            "twice: .* more than once",
        ),
        (lambda e: evaluate(torch.eye(3), e), "Give the queries as"),
        (lambda e: evaluate((torch.eye(3), [1, 2]), e), "'identity' has shape"),
        (lambda e: evaluate((torch.eye(3) / 0, [1, 2, 3]), e), "the queries: 3 of 3 embeddings hold NaN or infinity"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(VIReIDError, match=message):
        call(Embeddings(torch.eye(3), [1, 2, 3]))


def test_re_rankings_settings_are_arguments():
    generator = torch.Generator().manual_seed(0)
    query = (torch.randn(20, 8, generator=generator), torch.arange(20) % 5)
    gallery = (torch.randn(40, 8, generator=generator), torch.arange(40) % 5)
    usual, same = evaluate(query, gallery, rerank=True), evaluate(query, gallery, rerank=ReRanking(20, 6, 0.3))
    assert usual.to_dict() == same.to_dict()
    plain, other = evaluate(query, gallery), evaluate(query, gallery, rerank=ReRanking(5, 2, 1.0))
    assert other.to_dict()["reranking"] == {"k1": 5, "k2": 2, "lambda_value": 1.0}
    assert (other.rank1, other.mAP) == (plain.rank1, plain.mAP)  # lambda of 1: the original distance alone
    with pytest.raises(VIReIDError, match="lambda_value=2"):
        ReRanking(lambda_value=2)
