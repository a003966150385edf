from __future__ import annotations

import numpy as np
import torch
from references.report_content import make_embeddings

from vireid_lightning.metrics import Embeddings
from vireid_lightning.report.embedding_map import IDENTITIES, IMAGES, choose_images, draw_map


def test_a_map_is_the_same_each_time_and_keeps_identities_together():
    embeddings = make_embeddings()
    first, second = (draw_map(embeddings, np.arange(60), "euclidean") for _ in range(2))
    assert (first.point == second.point).all()
    assert first.position.tolist() == np.arange(60)[np.lexsort((np.arange(60), first.identity))].tolist()
    gaps = np.linalg.norm(first.point[:, None] - first.point, axis=2)
    same = first.identity[:, None] == first.identity
    assert gaps[same].mean() < 0.7 * gaps[~same].mean()


def test_few_identities_of_both_modalities_are_chosen():
    identity = np.repeat(np.arange(50), 30)
    modality = np.where(identity < 25, np.arange(1500) % 2, 0)  # half of the identities are visible only
    embeddings = Embeddings(torch.zeros(1500, 2), identity, None, modality)
    chosen = choose_images(embeddings, np.arange(1500), 0)
    assert len(np.unique(identity[chosen])) == IDENTITIES
    assert (identity[chosen] < 25).all()
    assert len(chosen) == IDENTITIES * 2 * IMAGES


def test_collapsed_embeddings_have_a_map_and_few_images_none():
    same = Embeddings(torch.ones(8, 3), [0, 0, 1, 1, 2, 2, 3, 3], None, [0, 1] * 4)
    assert np.isfinite(draw_map(same, np.arange(8), "cosine").point).all()
    assert draw_map(same, np.arange(3), "cosine") is None
