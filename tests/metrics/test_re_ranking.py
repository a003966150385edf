from __future__ import annotations

import numpy as np
import pytest
import torch
from references.re_ranking import re_rank as slow_re_rank

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics import re_rank
from vireid_lightning.metrics.parallel import gram_matrix


def images(queries, gallery, size=12, people=9, seed=0):
    draw = np.random.default_rng(seed)
    centre = draw.standard_normal((people, size))
    rows = centre[draw.integers(0, people, queries + gallery)] + 0.8 * draw.standard_normal((queries + gallery, size))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:queries].astype(np.float32), rows[queries:].astype(np.float32)


@pytest.mark.parametrize(
    ("queries", "gallery", "k1", "k2", "lambda_value"),
    [
        (60, 40, 20, 6, 0.3),
        (25, 90, 7, 1, 0.0),
        (30, 30, 5, 3, 1.0),
        (6, 5, 20, 6, 0.3),
        (1, 1, 3, 2, 0.5),
        (40, 9, 1, 2, 0.3),
    ],
)
def test_equals_the_slow_definition(queries, gallery, k1, k2, lambda_value):
    query, gallery = images(queries, gallery)
    found = re_rank(torch.from_numpy(query), torch.from_numpy(gallery), k1, k2, lambda_value)
    np.testing.assert_allclose(found, slow_re_rank(query, gallery, k1, k2, lambda_value), atol=1e-5)


def test_blocks_do_not_matter():
    query, gallery = map(torch.from_numpy, images(300, 250))
    whole = re_rank(query, gallery)
    # 1 MiB holds less than the 1.2 MB of all distances, so they are made twice, in several blocks. Products of other
    # block sizes may differ in the last bits: 12 additions of values up to 1, over distances of up to 4.
    torch.testing.assert_close(re_rank(query, gallery, block_mb=1), whole, atol=1e-5, rtol=0)


def test_unnormalised_and_scaled_embeddings_give_the_same():
    query, gallery = map(torch.from_numpy, images(40, 30))
    # A power of two scales float32 exactly, and distances are relative to the largest.
    assert torch.equal(re_rank(4 * query, 4 * gallery), re_rank(query, gallery))


def test_copies_of_one_image():
    same = torch.ones(5, 4)
    # Every set holds everyone it can, so nobody differs: the Jaccard distance of equal weights is 0.
    result = re_rank(same, same, k1=20, k2=1)
    torch.testing.assert_close(result, torch.zeros(5, 5), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "k1=0"),
        ({"k2": 0}, "k2=0"),
        ({"lambda_value": 1.5}, "lambda_value=1.5"),
        ({"query": torch.ones(3)}, r"\(3,\)"),
        ({"query": torch.ones(3, 5)}, "5 values"),
        ({"gallery": torch.tensor([[1.0, float("nan"), 0, 0]])}, "gallery .* row 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(VIReIDError, match=message):
        re_rank(**({"query": torch.ones(2, 4), "gallery": torch.ones(2, 4)} | arguments))


@pytest.mark.parametrize("count", [1, 7, 513, 1100])
def test_the_gram_matrix_is_symmetric_and_that_of_float64(count):
    images = torch.randn(count, 16)
    found = gram_matrix(images)
    assert found.is_contiguous()
    assert torch.equal(found, found.T)
    # 16 products of about 1: their rounding is that of 16 additions.
    torch.testing.assert_close(found.double(), images.double() @ images.double().T, rtol=0, atol=16 * 2e-6)
