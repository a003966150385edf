"""Weighted regularised triplet loss: both forms against loops over anchors, and at any scale."""

from __future__ import annotations

import pytest
import torch
from references.weighted_regularized_triplet import weighted_regularized_triplet_reference

from vireid_lightning.losses.weighted_regularized_triplet import weighted_regularized_triplet_loss

FORMS = ["release", "softmax"]


def draw(scale=1.0, images=12, identities=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, 8, generator=generator) * scale
    return embeddings.requires_grad_(), torch.arange(images) % identities


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 250.0])  # distances from 0.4 to about 1,000
def test_equals_the_loops_at_every_scale(form, scale):
    embeddings, identity = draw(scale)
    value = weighted_regularized_triplet_loss(embeddings, identity, form=form)
    wanted = weighted_regularized_triplet_reference(embeddings, identity, form)
    (gradient,) = torch.autograd.grad(value, embeddings)
    (wanted_gradient,) = torch.autograd.grad(wanted, embeddings)
    assert value.isfinite()
    assert gradient.isfinite().all()
    # A distance d errs by about d * 2**-23 in float32; so does an exponent, whose effect on a weighted mean of
    # distances is at most that times their spread, again d.
    spread = max(1.0, 4 * scale)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6 * spread, abs=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient.float(), rtol=2e-6 * spread, atol=2e-6 * spread)


@pytest.mark.parametrize("form", FORMS)
def test_distances_of_a_thousand_are_finite_and_exact(form):
    # One-dimensional, so the answer is known: each anchor's positive is 1,000 away, its negatives 3,000 to 5,000.
    embeddings = torch.tensor([[0.0], [1000.0], [4000.0], [5000.0]], requires_grad=True)
    identity = torch.tensor([0, 0, 1, 1])
    value = weighted_regularized_triplet_loss(embeddings, identity, form=form)
    value.backward()
    # release: d_p = 1000 / (1 + 1e-6), the negatives' weights vanish; softmax: 1000 - 3000 or less, softplus is 0.
    assert value.item() == pytest.approx(1000 / (1 + 1e-6) if form == "release" else 0.0, rel=1e-6)
    assert embeddings.grad.isfinite().all()
    # A pair of positives 1,000 apart pulls together: each of its two anchors with weight 1 of 4.
    expected = torch.tensor([[-0.5], [0.5], [-0.5], [0.5]]) if form == "release" else torch.zeros(4, 1)
    torch.testing.assert_close(embeddings.grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_identical_images_have_finite_gradients(form):
    embeddings = torch.ones(4, 3, requires_grad=True)
    value = weighted_regularized_triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), form=form)
    value.backward()
    assert value.item() == pytest.approx(0.693147, rel=1e-5)  # softplus(0 - 0)
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("form", FORMS)
def test_without_negatives_the_loss_is_zero(form):
    embeddings, _ = draw()
    value = weighted_regularized_triplet_loss(embeddings, torch.zeros(12, dtype=torch.long), form=form)
    value.backward()
    assert value == 0
    assert torch.equal(embeddings.grad, torch.zeros(12, 8))


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_batch_does_not_matter_and_autocast_neither(form):
    embeddings, identity = draw()
    value = weighted_regularized_triplet_loss(embeddings, identity, form=form)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(weighted_regularized_triplet_loss(embeddings[order], identity[order], form=form), value)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(weighted_regularized_triplet_loss(embeddings, identity, form=form), value)


def test_a_few_steps_lower_the_loss():
    embeddings, identity = draw()
    optimizer = torch.optim.SGD([embeddings], lr=1.0)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = weighted_regularized_triplet_loss(embeddings, identity)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values == sorted(values, reverse=True)
