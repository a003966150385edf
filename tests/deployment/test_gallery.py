from __future__ import annotations

import numpy as np
import pytest
import torch

from vireid_lightning.deployment import Gallery, gallery
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings, evaluate


def make(count, size=16, seed=0, persons=7, **about):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, size, generator=generator)
    zeros = torch.zeros(count, dtype=torch.long)
    return Embeddings(rows, torch.arange(count) % persons, zeros, zeros, about=about, origin=f"embeddings {seed}")


def rank_slowly(query, images, distance):
    """All distances in float64; of equal ones, the first image comes first."""
    query, images = query.embedding.double(), images.embedding.double()
    if distance == "cosine":
        query, images = (torch.nn.functional.normalize(part) for part in (query, images))
        values = 1 - query @ images.T
    else:
        values = (query[:, None] - images[None]).norm(dim=2)
    order = values.argsort(dim=1, stable=True)
    return order, values.gather(1, order)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("chunk", [2**15, 17])
def test_is_exact_whatever_the_blocks(distance, chunk, monkeypatch):
    monkeypatch.setattr(gallery, "WIDEST_CHUNK", chunk)
    images, query = make(100), make(9, seed=1)
    found = Gallery(images, distance=distance).search(query, k=25)
    order, values = rank_slowly(query, images, distance)
    assert found.position.tolist() == order[:, :25].tolist()
    assert found.distance == pytest.approx(values[:, :25].numpy(), abs=1e-5)
    if chunk == 17:  # several blocks of queries: a MiB holds many rows of 17, so the block is made of one
        monkeypatch.setattr(gallery, "_BYTES_OF_A_DISTANCE", 2**20 // 17)
    again = Gallery(images, distance=distance).search(query, k=25, block_mb=1)
    assert np.array_equal(again.position, found.position)


def test_equally_near_images_come_in_the_gallerys_order():
    images = Embeddings(torch.eye(4)[[2, 1, 2, 0, 1, 2]], torch.arange(6))
    found = Gallery(images).search(Embeddings(torch.eye(4)[[2]], [0]), k=6)
    assert found.position.tolist() == [[0, 2, 5, 1, 3, 4]]
    assert found.distance[0] == pytest.approx([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_neighbours_are_those_that_evaluate_ranks(distance):
    images, query = make(300, persons=40), make(50, seed=1, persons=40)
    found = Gallery(images, distance=distance).search(query, k=300)
    true = images.identity.numpy()[found.position] == query.identity.numpy()[:, None]
    scores = evaluate(query, images, distance=distance)
    first = true.argmax(axis=1) + 1
    assert first.tolist() == scores.trials[0].first.tolist()
    precision = np.cumsum(true, axis=1) / np.arange(1, 301)
    assert 100 * ((precision * true).sum(axis=1) / true.sum(axis=1)).mean() == pytest.approx(scores.mAP)


def test_a_gallery_is_searched_again_with_other_queries():
    images, searched = make(40), None
    searched = Gallery(images)
    searched.search(make(3, seed=1), k=2)
    query = make(5, seed=2)
    assert np.array_equal(searched.search(query, 4).position, Gallery(images).search(query, 4).position)


@pytest.mark.parametrize("chunk", [2**15, 17])
def test_one_modality_of_the_gallery_is_searched(chunk, monkeypatch):
    monkeypatch.setattr(gallery, "WIDEST_CHUNK", chunk)
    images, query = make(100), make(9, seed=1)
    images.modality[::3] = 1
    found = Gallery(images, modality=1).search(query, k=100)
    order, _ = rank_slowly(query, images, "cosine")
    expected = [[place for place in row if place % 3 == 0] for row in order.tolist()]
    assert found.position.tolist() == expected
    images.modality[:] = 0
    with pytest.raises(VIReIDError, match="has no infrared image to be searched"):
        Gallery(images, modality=1)


def test_fewer_images_than_asked_for():
    assert Gallery(make(3)).search(make(2, seed=1), k=10).position.shape == (2, 3)


def test_the_distance_that_a_file_was_made_for_is_taken(tmp_path):
    make(5, distance="euclidean").save(tmp_path / "a.npz")
    assert Gallery.load(tmp_path / "a.npz").distance == "euclidean"
    assert Gallery(make(5)).distance == "cosine"
    with pytest.raises(VIReIDError, match=r"a.npz was embedded for the distance euclidean, not cosine; search it by"):
        Gallery.load(tmp_path / "a.npz", distance="cosine")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"weights": "b"}, "were embedded by weights b with 16 values an image, but embeddings 0 by AGW weights a"),
        ({}, "weights that are not named"),
        ({"weights": "a", "distance": "euclidean"}, "embedded for the distance euclidean"),
        ({"weights": "a", "image_size": [64, 32]}, r"with the image_size \[64, 32\]"),
    ],
)
def test_queries_that_do_not_fit_are_refused(about, message):
    searched = Gallery(make(5, weights="a", method="AGW", image_size=[288, 144]))
    with pytest.raises(VIReIDError, match=message):
        searched.search(make(2, seed=1, **about))


def test_wrong_arguments():
    with pytest.raises(VIReIDError, match="k is 0"):
        Gallery(make(5)).search(make(2), k=0)
    with pytest.raises(VIReIDError, match="'manhattan' is unknown"):
        Gallery(make(5), distance="manhattan")
    with pytest.raises(VIReIDError, match="with 8 values an image"):
        Gallery(make(5)).search(make(2, size=8))
