from __future__ import annotations

import torch
from references.mpanet import separation

from vireid_lightning.losses import separation_loss


def test_value_and_gradient_equal_the_slow_reference():
    masks = torch.rand(3, 6, 4, 2, dtype=torch.float64, requires_grad=True)
    fast, slow = separation_loss(masks), separation(masks)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(loss, masks)[0] for loss in (fast, slow)))


def test_masks_on_different_pixels_cost_nothing_and_equal_ones_their_square():
    apart = torch.eye(4).reshape(1, 4, 2, 2)
    assert separation_loss(apart) == 0
    torch.testing.assert_close(separation_loss(torch.full((5, 3, 2, 2), 0.5)), torch.tensor(1.0))


def test_one_mask_has_no_pair():
    masks = torch.rand(2, 1, 3, 3, requires_grad=True)
    loss = separation_loss(masks)
    loss.backward()
    assert loss == 0
    assert torch.equal(masks.grad, torch.zeros_like(masks))


def test_half_precision_is_computed_in_float32():
    masks = torch.rand(2, 6, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = separation_loss(masks)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, separation_loss(masks.float()))
