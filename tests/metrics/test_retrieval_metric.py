from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import Protocol, RetrievalMetric, Trial
from vireid_lightning.types import Sample

IMAGES, IDENTITIES = 37, 6


def samples():
    return [Sample(f"cam{i % 4 + 1}/{i:03d}.jpg", i % IDENTITIES, i % 4 // 2, i % 4 + 1) for i in range(IMAGES)]


def protocols():
    modality = np.array([sample.modality for sample in samples()])
    visible, infrared = np.flatnonzero(modality == 0), np.flatnonzero(modality == 1)
    trials = tuple(Trial(infrared, visible[start::2]) for start in range(2))
    return [Protocol("halves", trials, "sysu", "identity"), Protocol("all", (Trial(visible, infrared),))]


def embeddings():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((IMAGES, 16), dtype=np.float32))


def scores(table):
    return [row.to_dict() for row in table]


def expected(**arguments):
    metric = RetrievalMetric(samples(), protocols(), **arguments)
    metric.update(embeddings(), torch.arange(IMAGES))
    return scores(metric.compute())


#: What each of two processes sees.
SHARES = {
    "uneven": (range(0, IMAGES, 2), range(1, IMAGES, 2)),
    "padded, so that images come again": (range(IMAGES), range(3)),
    "fewer images than processes": (range(IMAGES), ()),
}


def _process(rank, world, port, results):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    found = {}
    for case, shares in SHARES.items():
        metric = RetrievalMetric(samples(), protocols())
        for batch in torch.tensor(shares[rank], dtype=torch.int64).split(5) if len(shares[rank]) else ():
            metric.update(embeddings()[batch], batch)
        found[case] = scores(metric.compute())
    results[rank] = found
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_as_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.get_context("spawn").Manager() as manager:
        results = manager.dict()
        mp.spawn(_process, args=(2, port, results), nprocs=2)
        for case in SHARES:
            assert results[0][case] == expected(), case
            assert results[1][case] == expected(), case


def test_order_and_repetition_of_batches_do_not_matter():
    metric = RetrievalMetric(samples(), protocols())
    order = torch.randperm(IMAGES)
    for batch in torch.cat([order, order[:5]]).split(4):
        metric.update(embeddings()[batch], batch)
    assert scores(metric.compute()) == expected()


def test_scores_in_float32_under_autocast_and_low_matrix_precision():
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert expected() == expected()
            metric = RetrievalMetric(samples(), protocols())
            metric.update(embeddings(), torch.arange(IMAGES))
            inside = scores(metric.compute())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert inside == expected()


def test_reset_forgets():
    metric = RetrievalMetric(samples(), protocols())
    metric.update(-embeddings(), torch.arange(IMAGES))
    metric.reset()
    metric.update(embeddings(), torch.arange(IMAGES))
    assert scores(metric.compute()) == expected()


def test_names_missing_images():
    metric = RetrievalMetric(samples(), protocols())
    present = torch.tensor([i for i in range(IMAGES) if i not in (5, 9)])
    metric.update(embeddings()[present], present)
    with pytest.raises(VIReIDError, match=r"2 of the 37 images .* the first is 'cam2/005.jpg'"):
        metric.compute()


def test_no_batch_at_all_is_a_clear_error():
    with pytest.raises(VIReIDError, match="37 of the 37"), pytest.warns(UserWarning, match="compute"):
        RetrievalMetric(samples(), protocols()).compute()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_names_images_with_embeddings_that_are_not_finite(value):
    broken = embeddings()
    broken[7, 3] = value
    metric = RetrievalMetric(samples(), protocols())
    metric.update(broken, torch.arange(IMAGES))
    with pytest.raises(VIReIDError, match=r"1 of 37 embeddings .* 'cam4/007.jpg'"):
        metric.compute()


def test_refuses_unknown_distances_and_shapes():
    with pytest.raises(VIReIDError, match="manhattan"):
        RetrievalMetric(samples(), protocols(), distance="manhattan")
    with pytest.raises(VIReIDError, match=r"\(B, D\)"):
        RetrievalMetric(samples(), protocols()).update(torch.ones(3), torch.arange(3))


def test_names_the_protocol_without_a_match():
    empty = Protocol("lonely", (Trial(np.array([0]), np.array([1])),))
    metric = RetrievalMetric(samples(), [empty])
    metric.update(embeddings(), torch.arange(IMAGES))
    with pytest.raises(VIReIDError, match="lonely: none of the 1 queries"):
        metric.compute()
