from __future__ import annotations

import pytest
import torch
from references.center_cluster import center_cluster

from vireid_lightning.losses import center_cluster_loss


@pytest.mark.parametrize("scale", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("identity", [[0, 1, 2, 0, 1, 2], [5, 5, 2, 9, 9, 9, 2], [1, 0, 1, 0]])
def test_value_and_gradient_equal_the_slow_reference(scale, identity):
    # No identity with a single image: one that is its own centre has no direction, which the reference does not define.
    embeddings = (scale * torch.randn(len(identity), 7, dtype=torch.float64)).requires_grad_()
    identity = torch.tensor(identity)
    fast, slow = center_cluster_loss(embeddings, identity, 0.7), center_cluster(embeddings, identity, 0.7)
    # Both sum fewer than 100 float64 numbers of the same size.
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(loss, embeddings)[0] for loss in (fast, slow)))


def test_a_value_by_hand():
    # Centres 0 and 0.5 on a line: images at 0.1 from theirs, centres 0.2 short of the margin.
    embeddings = torch.tensor([[-0.1], [0.1], [0.4], [0.6]])
    loss = center_cluster_loss(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.7)
    torch.testing.assert_close(loss, torch.tensor(0.1 + 0.2))


def test_the_order_of_the_batch_does_not_matter():
    embeddings, identity = 0.2 * torch.randn(12, 5, dtype=torch.float64), torch.arange(4).repeat(3)
    order = torch.randperm(12)
    torch.testing.assert_close(
        center_cluster_loss(embeddings, identity), center_cluster_loss(embeddings[order], identity[order])
    )


def test_one_identity_leaves_the_first_term():
    embeddings = torch.tensor([[0.0], [2.0]])
    torch.testing.assert_close(center_cluster_loss(embeddings, torch.tensor([3, 3])), torch.tensor(1.0))


@pytest.mark.parametrize("identity", [[0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0]])
def test_equal_embeddings_have_a_gradient_of_zero(identity):
    embeddings = torch.ones(4, 3, requires_grad=True)
    center_cluster_loss(embeddings, torch.tensor(identity)).backward()
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings, identity = torch.randn(8, 64, dtype=dtype), torch.arange(4).repeat(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = center_cluster_loss(embeddings, identity)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, center_cluster_loss(embeddings.float(), identity))


def test_gradient_steps_lower_it():
    embeddings, identity = torch.nn.Parameter(torch.randn(8, 4)), torch.arange(4).repeat(2)
    optimizer = torch.optim.SGD([embeddings], lr=0.5)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(center_cluster_loss(embeddings, identity))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_the_gradient_is_the_same_every_time():
    """Threads that add up the gradient of a centre in no fixed order would make each run of a seed another one."""
    embeddings, identity = torch.randn(64, 2048, requires_grad=True), torch.arange(8).repeat(8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = [torch.autograd.grad(center_cluster_loss(embeddings, identity), embeddings)[0] for _ in range(30)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
