from __future__ import annotations

import numpy as np
import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings, Protocol, Trial, evaluate, scoring

IMAGES, QUERIES, IDENTITIES = 900, 60, 25


@pytest.fixture
def streamed(monkeypatch):
    """Return a function that scores by streaming, in narrow blocks, and one that does not."""

    def score(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "LARGEST_GALLERY", 10)
            patch.setattr("vireid_lightning.metrics.streaming._WIDEST_BLOCK", 128)
            return evaluate(*arguments, **options)

    return score


def sets(values, seed=0):
    draw = np.random.default_rng(seed)
    make = lambda count: (  # noqa: E731
        draw.integers(-values, values + 1, (count, 6)).astype(np.float32),
        draw.integers(-1, IDENTITIES, count),
        draw.integers(-1, 7, count),
    )
    return make(QUERIES), make(IMAGES)


@pytest.mark.parametrize("values", [1, 3, 100], ids=["nearly all tie", "many ties", "few ties"])
@pytest.mark.parametrize("cmc", ["image", "identity"])
@pytest.mark.parametrize("removal", ["none", "sysu", "same-camera"])
def test_streaming_changes_nothing(streamed, values, cmc, removal):
    query, gallery = sets(values)
    arguments = {"removal": removal, "cmc": cmc, "distance": "euclidean"}
    # Whole numbers: products are exact in float32 whatever the block, so that ties are ties on both ways.
    found = streamed(query, gallery, **arguments).to_dict()
    expected = evaluate(query, gallery, **arguments).to_dict()
    assert found["valid_queries"] == expected["valid_queries"]
    for rank in (1, 5, 10, 20):
        assert found["scores"][f"rank{rank}"] == expected["scores"][f"rank{rank}"]
    # There the quotients of AP are in float32, here in float64.
    assert found["scores"]["mAP"] == pytest.approx(expected["scores"]["mAP"], rel=2**-23)
    assert found["scores"]["mINP"] == pytest.approx(expected["scores"]["mINP"], rel=1e-12)


def test_a_gallery_in_its_own_order_and_memory_mapped(streamed, tmp_path):
    query, (embedding, identity, camera) = sets(2)
    np.save(tmp_path / "gallery.npy", embedding)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    gallery = Embeddings(mapped, identity, camera)
    assert isinstance(gallery.embedding, np.memmap)
    order = np.random.default_rng(3).permutation(IMAGES)[:700]
    protocol = Protocol("drawn", (Trial(np.arange(QUERIES), order),), "same-camera", "identity")
    found = streamed(query, gallery, protocol, distance="euclidean").to_dict()
    expected = evaluate(query, (embedding, identity, camera), protocol, distance="euclidean").to_dict()
    assert found["scores"] == pytest.approx(expected["scores"], rel=2**-23)
    assert found["gallery_hash"] == expected["gallery_hash"]


def test_cosine(streamed):
    query, gallery = sets(100)
    found, expected = streamed(query, gallery), evaluate(query, gallery)
    assert found.to_dict()["scores"] == pytest.approx(expected.to_dict()["scores"], rel=2**-23)


def test_one_block_or_many(streamed):
    query, gallery = sets(3)
    wide = streamed(query, gallery, distance="euclidean", block_mb=64).to_dict()
    high = evaluate(query, gallery, distance="euclidean", block_mb=1).to_dict()
    assert wide["scores"] == pytest.approx(high["scores"], rel=2**-23)


def test_a_large_gallery_streams_by_itself():
    count = scoring.LARGEST_GALLERY + 5
    identity = torch.arange(count) // 4
    embedding = torch.nn.functional.one_hot(identity % 8, 8).float()
    scores = evaluate((torch.eye(8), range(8)), (embedding, identity), distance="euclidean")
    # Each query ties with an eighth of the gallery, of which its own four images stand first.
    assert (scores.rank1, scores.mAP, scores.mINP) == (100, 100, 100)


def test_nobody_to_be_found_is_an_error(streamed):
    with pytest.raises(VIReIDError, match="none of the 2 queries"):
        streamed((torch.eye(2), [-1, 70]), (torch.eye(2).repeat(20, 1), [-1] * 40))
