from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from references.report_content import make_embeddings, make_protocols

from vireid_lightning.metrics import Embeddings, Protocol, Trial
from vireid_lightning.protocols import is_removed
from vireid_lightning.report.thresholds import measure_thresholds


def measure_slowly(data, protocol, trial, rate):
    """Walk over every query and image; choose on half of the persons, count on the others."""
    rows = torch.nn.functional.normalize(data.embedding.double()).numpy()
    identity, camera = data.identity.numpy(), data.camera.numpy()
    persons = sorted(set(identity[trial.query].tolist()))
    nearest = []
    for q in trial.query:
        other, own = math.inf, math.inf
        for g in trial.gallery:
            same = identity[q] == identity[g]
            if np.any(is_removed(protocol.removal, same, camera[q], camera[g])):
                continue
            value = 1 - rows[q] @ rows[g]
            other, own = (other, min(own, value)) if same else (min(other, value), own)
        nearest.append((persons.index(identity[q]) % 2, other, own))
    wrong, missed = [], []
    for half in (0, 1):
        chosen = sorted(other for side, other, _ in nearest if side == half)
        limit = chosen[math.floor(len(chosen) * rate)]
        wrong += [other < limit for side, other, _ in nearest if side != half]
        missed += [own >= limit for side, _, own in nearest if side != half and own < math.inf]
    every = sorted(other for _, other, _ in nearest)
    return every[math.floor(len(every) * rate)], np.mean(wrong), np.mean(missed)


@pytest.mark.parametrize("number", [0, 1])
def test_is_what_a_loop_over_all_pairs_finds(number):
    data = make_embeddings()
    protocol = make_protocols(data)[number]
    found = measure_thresholds(data, protocol, "cosine")
    row = next(item for item in found.errors if item.stated == 0.1)
    expected = np.mean([measure_slowly(data, protocol, trial, 0.1) for trial in protocol.trials], axis=0)
    assert (row.threshold, row.false_positive, row.missed) == pytest.approx(tuple(expected), abs=1e-6)
    assert 0 < row.missed < 1
    assert (found.queries, found.gallery, found.identities) == (30, 30, 6)


def test_too_few_queries_tell_nothing():
    data = make_embeddings()
    rows = measure_thresholds(data, make_protocols(data)[0], "cosine").errors
    assert [row.threshold is None for row in rows] == [True, True, True, False]  # 15 queries in each half


def test_a_stored_threshold_is_counted_on_all_queries():
    rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])
    data = Embeddings(rows, [0, 1, 0, 1], modality=[1, 1, 0, 0])
    data.about["thresholds"] = {"stated_rate": 0.01, "distance": "cosine", "infrared": {"threshold": 0.3}}
    protocol = Protocol("it", (Trial(np.array([0, 1]), np.array([2, 3])),))
    stored = measure_thresholds(data, protocol, "cosine").errors[-1]
    # The second query is 0.2 from the other person's image and 0.4 from its own.
    assert (stored.stored, stored.threshold, stored.false_positive, stored.missed) == (True, 0.3, 0.5, 0.5)
    assert not any(row.stored for row in measure_thresholds(data, protocol, "euclidean").errors)
