from __future__ import annotations

import pytest
import torch
from references.batch_hard_triplet import batch_hard_triplet

from vireid_lightning.losses import batch_hard_triplet_loss


@pytest.mark.parametrize("margin", [0.3, 2.0])
@pytest.mark.parametrize("identity", [[0, 1, 2, 0, 1, 2], [5, 5, 2, 9, 9, 9, 2], [1, 0], [4, 4, 4]])
def test_value_and_gradient_equal_the_slow_reference(margin, identity):
    identity = torch.tensor(identity)
    embeddings = torch.randn(len(identity), 7, dtype=torch.float64, requires_grad=True)
    fast, slow = batch_hard_triplet_loss(embeddings, identity, margin), batch_hard_triplet(embeddings, identity, margin)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    fast.backward()
    if slow.requires_grad:
        torch.testing.assert_close(embeddings.grad, torch.autograd.grad(slow, embeddings)[0])
    else:  # no anchor has a negative
        assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_the_order_of_the_batch_does_not_matter():
    embeddings, identity, order = torch.randn(12, 5, dtype=torch.float64), torch.arange(4).repeat(3), torch.randperm(12)
    torch.testing.assert_close(
        batch_hard_triplet_loss(embeddings, identity), batch_hard_triplet_loss(embeddings[order], identity[order])
    )


def test_equal_embeddings_cost_the_margin_and_have_no_gradient():
    embeddings = torch.ones(4, 3, requires_grad=True)
    loss = batch_hard_triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.3)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.3))
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


def test_half_precision_is_computed_in_float32():
    embeddings, identity = torch.randn(8, 64, dtype=torch.bfloat16), torch.arange(4).repeat(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = batch_hard_triplet_loss(embeddings, identity)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, batch_hard_triplet_loss(embeddings.float(), identity))


def test_gradient_steps_lower_it():
    embeddings, identity = torch.nn.Parameter(torch.randn(8, 4)), torch.arange(4).repeat(2)
    optimizer = torch.optim.SGD([embeddings], lr=0.5)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(batch_hard_triplet_loss(embeddings, identity))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
