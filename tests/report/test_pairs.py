from __future__ import annotations

import numpy as np
import pytest
import torch
from references.report_content import make_embeddings, make_protocols
from sklearn.metrics import roc_curve

from vireid_lightning.metrics import Embeddings, Protocol, Trial
from vireid_lightning.protocols import is_removed
from vireid_lightning.report.pairs import count_pairs, measure_error_rates


def all_pairs(embeddings, trial, removal, distance):
    rows = embeddings.embedding.double().numpy()
    if distance == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        values = 1 - rows[trial.query] @ rows[trial.gallery].T
    else:
        values = np.linalg.norm(rows[trial.query][:, None] - rows[trial.gallery], axis=2)
    identity, camera = embeddings.identity.numpy(), embeddings.camera.numpy()
    same = identity[trial.query][:, None] == identity[trial.gallery]
    kept = ~is_removed(removal, same, camera[trial.query][:, None], camera[trial.gallery]) | np.zeros_like(same)
    return values[kept], same[kept]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("removal", ["none", "same-camera"])
def test_error_rates_are_those_of_scikit_learn(distance, removal):
    embeddings = make_embeddings()
    trial = Trial(np.arange(0, 60, 2), np.arange(1, 60, 2))
    found = measure_error_rates(embeddings, Protocol("it", (trial,), removal), distance)
    values, same = all_pairs(embeddings, trial, removal, distance)
    false, true, _ = roc_curve(same, -values, drop_intermediate=False)
    # The threshold moves in steps of 1/65,536 of the range: no two of these pairs are as near.
    ours = np.interp(false, found.false_positive, found.true_positive)
    assert np.abs(np.interp(false, false, true) - ours).max() < 1e-9
    assert (found.true_pairs, found.false_pairs) == (same.sum(), (~same).sum())
    for rate in (1e-2, 1e-1):
        assert found.at_rates[rate] == [pytest.approx(true[false <= rate].max(), abs=1e-12)]
    assert found.at_rates[1e-4] is None  # too few false pairs to tell


def test_trials_are_averaged():
    embeddings = make_embeddings()
    protocol = make_protocols(embeddings)[0]
    both = measure_error_rates(embeddings, protocol, "cosine")
    alone = [
        measure_error_rates(embeddings, Protocol("it", (trial,), protocol.removal), "cosine")
        for trial in protocol.trials
    ]
    assert both.at_rates[1e-1] == [item.at_rates[1e-1][0] for item in alone]
    assert both.true_pairs == sum(item.true_pairs for item in alone)


def test_histograms_count_each_pair_once():
    embeddings = make_embeddings()
    histograms, counted = count_pairs(embeddings, np.arange(60), "cosine")
    assert counted == 60
    assert [item.name for item in histograms] == ["within visible", "within infrared", "visible and infrared"]
    # 6 identities of 5 images in each modality.
    assert [item.true_pairs for item in histograms] == [6 * 10, 6 * 10, 6 * 25]
    assert [item.true_pairs + item.false_pairs for item in histograms] == [30 * 29 / 2, 30 * 29 / 2, 30 * 30]
    for item in histograms:
        assert item.true.sum() == pytest.approx(1)
        assert item.false.sum() == pytest.approx(1)


def test_collapsed_and_unknown_images_do_no_harm():
    same = Embeddings(torch.ones(6, 3), [1, 1, 2, 2, -1, -1], None, [0, 1, 0, 1, 0, 1])
    histograms, counted = count_pairs(same, np.arange(6), "euclidean")
    assert counted == 4
    assert sum(item.true_pairs for item in histograms) == 2
    trial = Trial(np.array([0, 2]), np.array([1, 3]))
    rates = measure_error_rates(same, Protocol("it", (trial,)), "euclidean")
    assert rates.at_rates[1e-1] is None
    assert rates.true_positive.tolist() == [0, 1]
    nobody = Embeddings(torch.ones(3, 3), [-1, -1, -1])
    assert count_pairs(nobody, np.arange(3), "cosine") == ([], 0)
