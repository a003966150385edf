from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from vireid_lightning.deployment import Gallery, GalleryIndex
from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Embeddings

pytest.importorskip("faiss")


def make(count, seed=0, distance="cosine"):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(50, 24, generator=torch.Generator().manual_seed(9))
    identity = torch.arange(count) % 50
    rows = centre[identity] + 0.7 * torch.randn(count, 24, generator=generator)
    about = {"weights": "a", "distance": distance}
    return Embeddings(rows, identity, modality=torch.zeros(count, dtype=torch.long), about=about)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_finds_the_stated_share_of_the_exact_search_with_its_distances(distance, tmp_path):
    gallery, query = Gallery(make(3000, distance=distance)), make(100, seed=1, distance=distance)
    index = GalleryIndex.build(gallery, recall=0.95, sample=make(200, seed=2, distance=distance))
    assert 0.95 <= index.about["recall"] <= 1
    assert index.about["probes"] < index.about["lists"]  # otherwise it is no index
    exact, found = gallery.search(query, 10), index.search(query, 10)
    shares = [len(np.intersect1d(*rows)) / 10 for rows in zip(exact.position, found.position)]
    assert np.mean(shares) > 0.9  # other queries than those it was measured on
    same = exact.position[:, 0] == found.position[:, 0]
    assert same.mean() > 0.9
    assert found.distance[same, 0] == pytest.approx(exact.distance[same, 0], abs=1e-5)
    assert (np.diff(found.distance, axis=1) >= 0).all()

    index.save(tmp_path / "index.npz")
    again = GalleryIndex.load(tmp_path / "index.npz", gallery)
    assert np.array_equal(again.search(query, 10).position, found.position)
    with pytest.raises(VIReIDError, match="is not an index of the images"):
        GalleryIndex.load(tmp_path / "index.npz", Gallery(make(3000, seed=3, distance=distance)))


def test_every_image_where_all_are_asked_for():
    gallery, query = Gallery(make(300)), make(3, seed=1)
    index = GalleryIndex.build(gallery, recall=0.5)
    assert np.array_equal(index.search(query, 300).position, gallery.search(query, 300).position)


def test_bad_input(tmp_path, monkeypatch):
    gallery = Gallery(make(200))
    with pytest.raises(VIReIDError, match=r"The recall is 1.5"):
        GalleryIndex.build(gallery, recall=1.5)
    index = GalleryIndex.build(gallery)
    with pytest.raises(VIReIDError, match="k is 0"):
        index.search(make(2), 0)
    make(5).save(tmp_path / "a.npz")
    with pytest.raises(VIReIDError, match="lacks the array 'index'"):
        GalleryIndex.load(tmp_path / "a.npz", gallery)
    np.savez(tmp_path / "b.npz", index=np.zeros(40, dtype=np.uint8), about=np.array("{}"))
    with pytest.raises(VIReIDError, match=r"is no index that `vireid index` wrote|is not an index of the images"):
        GalleryIndex.load(tmp_path / "b.npz", gallery)

    def lack(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", lack)
    with pytest.raises(VIReIDError, match=r"pip install vireid-lightning\[faiss\]"):
        GalleryIndex.build(gallery)
