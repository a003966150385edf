"""Circle softmax against the loop over images and classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.cmam import circle_logits, smoothed_cross_entropy

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import circle_softmax_logits


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.35), (8.0, 0.0), (16.0, 0.5)])
def test_values_and_gradients_equal_the_slow_reference(scale, margin):
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    identity = torch.tensor([0, 1, 3, 3, 2, 0])
    fast = circle_softmax_logits(embeddings, weight, identity, scale=scale, margin=margin)
    slow = circle_logits(embeddings, weight, identity, scale, margin)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    losses = F.cross_entropy(fast, identity, label_smoothing=0.1), smoothed_cross_entropy(slow, identity, 0.1)
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(loss, (embeddings, weight), retain_graph=True) for loss in losses]
    for found, expected in zip(*gradients):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_the_lengths_of_embeddings_and_weights_do_not_matter():
    embeddings, weight, identity = torch.randn(6, 5), torch.randn(4, 5), torch.tensor([0, 1, 3, 3, 2, 0])
    scaled = circle_softmax_logits(3 * embeddings, 0.2 * weight, identity)
    # Logits reach 64 * 1.35 * 1.65 = 143; 2e-5 of that is a few hundred units of float32's 6e-8.
    torch.testing.assert_close(scaled, circle_softmax_logits(embeddings, weight, identity), rtol=2e-5, atol=2e-4)


def test_half_precision_is_computed_in_float32():
    embeddings, weight, identity = torch.randn(4, 8).bfloat16(), torch.randn(3, 8), torch.tensor([0, 1, 2, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = circle_softmax_logits(embeddings, weight, identity)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, circle_softmax_logits(embeddings.float(), weight, identity))


def test_an_embedding_of_zeros_has_finite_gradients():
    embeddings = torch.zeros(2, 3, requires_grad=True)
    F.cross_entropy(
        circle_softmax_logits(embeddings, torch.eye(3), torch.tensor([0, 1])), torch.tensor([0, 1])
    ).backward()
    assert torch.isfinite(embeddings.grad).all()


def test_an_identity_without_a_class_is_an_error():
    with pytest.raises(VIReIDError, match="has 3 classes"):
        circle_softmax_logits(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 3]))


def test_gradient_steps_lower_the_cross_entropy():
    embeddings, weight = torch.nn.Parameter(torch.randn(8, 6)), torch.nn.Parameter(torch.randn(4, 6))
    identity, losses = torch.arange(4).repeat(2), []
    optimizer = torch.optim.SGD([embeddings, weight], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(circle_softmax_logits(embeddings, weight, identity), identity))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
