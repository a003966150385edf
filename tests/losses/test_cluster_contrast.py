"""The terms of CMAM's second stage against loops over images and pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references import cmam as slow

from vireid_lightning.losses import distance_difference, prototype_logits


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_contrast_with_the_memory_equals_the_slow_reference_with_gradients(temperature):
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    prototypes = F.normalize(torch.randn(4, 5, dtype=torch.float64), dim=1)
    labels = torch.tensor([3, 0, 1, 1, 2, 0])
    fast = F.cross_entropy(prototype_logits(embeddings, prototypes, temperature=temperature), labels)
    expected = slow.cluster_contrast(embeddings, prototypes, labels, temperature)
    torch.testing.assert_close(fast, expected, rtol=1e-11, atol=1e-11)
    found, wanted = (torch.autograd.grad(value, embeddings)[0] for value in (fast, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_the_memory_receives_no_gradient():
    embeddings, prototypes = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    prototype_logits(embeddings, prototypes).sum().backward()
    assert prototypes.grad is None


def test_distances_equal_the_slow_reference_with_gradients():
    first, second = (torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    values = distance_difference(first, second), slow.distance_difference(first, second)
    torch.testing.assert_close(*values, rtol=1e-11, atol=1e-11)
    for found, expected in zip(*(torch.autograd.grad(value, (first, second)) for value in values)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_equal_images_have_distance_zero_and_finite_gradients():
    embeddings = torch.ones(3, 4, requires_grad=True)
    other = torch.randn(3, 4)
    distance_difference(embeddings, other).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert distance_difference(other, other) == 0


def test_half_precision_is_computed_in_float32():
    embeddings, prototypes = torch.randn(4, 8).bfloat16(), F.normalize(torch.randn(3, 8), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prototype_logits(embeddings, prototypes).dtype == torch.float32
        assert distance_difference(embeddings, embeddings).dtype == torch.float32
