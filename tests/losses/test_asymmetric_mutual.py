"""The mutual terms of CMAM's first stage: values, gradients, and who receives any."""

from __future__ import annotations

import pytest
import torch
from references import cmam as slow

from vireid_lightning.losses import (
    asymmetric_kl,
    asymmetric_similarity,
    batch_hard_triplet_loss,
    similarity_difference,
    symmetric_kl_divergence,
)


def streams(columns: int, scale: float = 1.0) -> list[torch.Tensor]:
    return [(scale * torch.randn(5, columns, dtype=torch.float64)).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(
    ("fast", "reference"),
    [(symmetric_kl_divergence, slow.symmetric_kl), (similarity_difference, slow.similarity_difference)],
)
def test_each_term_equals_the_slow_reference_with_gradients(fast, reference):
    first, second, _ = streams(4)
    values = fast(first, second), reference(first, second)
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    for found, expected in zip(*(torch.autograd.grad(value, (first, second)) for value in values)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("fast", "term"), [(asymmetric_kl, slow.symmetric_kl), (asymmetric_similarity, slow.similarity_difference)]
)
def test_the_asymmetric_sums_equal_the_slow_reference_with_gradients(fast, term):
    colour, gray, extractor = streams(4)
    value = fast(colour, gray, extractor)
    expected = term(extractor, colour.detach()) + term(gray, extractor.detach())
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(total, (gray, extractor), retain_graph=True) for total in (value, expected)]
    for found, wanted in zip(*gradients):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("loss", [asymmetric_kl, asymmetric_similarity])
def test_no_gradient_reaches_the_colour_stream(loss):
    colour, gray, extractor = streams(4)
    loss(colour, gray, extractor).backward()
    assert colour.grad is None
    assert gray.grad.abs().sum() > 0
    assert extractor.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", [asymmetric_kl, asymmetric_similarity])
def test_the_gray_stream_never_pulls_the_gray_extractor(loss):
    colour, gray, extractor = streams(4)
    own = torch.autograd.grad(loss(colour, gray, extractor), extractor)[0]
    other = torch.autograd.grad(loss(colour, torch.randn_like(gray), extractor), extractor)[0]
    assert torch.equal(own, other)


def test_equal_streams_cost_nothing():
    same = torch.randn(5, 4)
    assert asymmetric_kl(same, same, same) == 0
    assert asymmetric_similarity(same, same, same) == 0


def test_confident_disagreement_stays_finite():
    first = torch.tensor([[300.0, -300.0]], requires_grad=True)
    value = symmetric_kl_divergence(first, -first.detach())
    value.backward()
    assert value == 600  # each probability moves wholly, over a difference of 600 in log space, twice, halved
    assert torch.isfinite(first.grad).all()


def test_similarity_does_not_depend_on_the_lengths():
    first, second, _ = streams(4)
    torch.testing.assert_close(
        similarity_difference(2 * first, second), similarity_difference(first, second), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("identity", [[0, 0, 1, 1, 1], [2, 1, 2, 1, 2]])
def test_the_soft_margin_triplet_equals_the_slow_reference_with_gradients(identity):
    embeddings, identity = streams(4)[0], torch.tensor(identity)
    values = batch_hard_triplet_loss(embeddings, identity, margin=None), slow.soft_margin_triplet(embeddings, identity)
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad(value, embeddings)[0] for value in values)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_soft_margin_triplet_of_one_identity_is_zero_with_zero_gradient():
    embeddings = torch.randn(4, 3, requires_grad=True)
    loss = batch_hard_triplet_loss(embeddings, torch.zeros(4).long(), margin=None)
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))
