"""Scoring in several threads and in every mode of autograd; the other tests run in one thread."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from vireid_lightning.clustering import jaccard_distance
from vireid_lightning.metrics import evaluate
from vireid_lightning.metrics.parallel import block_threads, map_parts, split_rows, thread_count

IMAGES, IDENTITIES = 1200, 40


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sets():
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(IDENTITIES, 24, generator=draw)
    identity = torch.randint(0, IDENTITIES, (IMAGES,), generator=draw)
    camera = torch.randint(1, 7, (IMAGES,), generator=draw)
    rows = centres[identity] + 1.5 * torch.randn(IMAGES, 24, generator=draw)
    rows[::5] = rows[1::5]  # equal embeddings of different persons
    return (rows[:500], identity[:500], camera[:500]), (rows[500:], identity[500:], camera[500:])


def scored(monkeypatch):
    """The scores of one chunk, many chunks and re-ranking, and a Jaccard distance."""
    query, gallery = sets()
    options = {"removal": "same-camera", "cmc": "identity", "block_mb": 8}
    rows = [evaluate(query, gallery, **options), evaluate(query, gallery, rerank=True, **options)]
    with monkeypatch.context() as patch:
        patch.setattr("vireid_lightning.metrics.engine.WIDEST_CHUNK", 10)
        rows.append(evaluate(query, gallery, **options))
    return [row.to_dict()["scores"] for row in rows], jaccard_distance(query[0]).toarray()


@pytest.mark.slow
@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_threads_and_modes_change_nothing(threads, mode, monkeypatch):
    with mode():
        found, distance = scored(monkeypatch)
    torch.set_num_threads(1)
    expected, reference = scored(monkeypatch)
    for ours, theirs in zip(found, expected):
        # Blocks of other heights may round a product differently: of 500 queries, one may change places.
        assert ours == pytest.approx(theirs, abs=100 / 500)
    np.testing.assert_allclose(distance, reference, atol=1e-5)
    assert found[0]["rank1"] > 5 * 100 / IDENTITIES


def test_parts_are_shared_out_and_their_threads_given_back(threads):
    with block_threads():
        assert (thread_count(), torch.get_num_threads()) == (threads, 1)
        with torch.inference_mode():
            made = torch.zeros(6)
            map_parts(lambda place: made[place : place + 1].fill_(place), range(6), made.device)
    assert made.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.get_num_threads() == threads


def test_blocks_hold_every_row_once_and_stay_within_their_memory(threads):
    row_bytes = torch.randint(1, 100, (500,), generator=torch.Generator().manual_seed(0))
    row_bytes[7] = 5000  # more than a block may take: a block of its own
    blocks = split_rows(row_bytes, 900)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(500))
    sizes = {(block.start, block.stop): int(row_bytes[block].sum()) for block in blocks}
    assert sizes.pop((7, 8)) == 5000
    assert max(sizes.values()) * threads <= 900
    assert split_rows(row_bytes[:0], 900) == []


def test_few_rows_are_shared_among_all_threads(threads):
    assert len(split_rows(torch.full((6,), 10), 2**20)) == threads
