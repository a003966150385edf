from __future__ import annotations

import pytest
import torch
from references.mpanet import modality_identity

from vireid_lightning.losses import modality_identity_loss


@pytest.mark.parametrize("modality", [[0, 0, 0, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_value_and_gradient_equal_the_slow_reference(modality):
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    arguments = (logits, torch.tensor([3, 0, 1, 1, 2]), torch.tensor(modality))
    fast, slow = modality_identity_loss(*arguments), modality_identity(*arguments)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (fast, slow)))


def test_each_modality_counts_as_much_whatever_its_number_of_images():
    logits, identity = torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)
    loss = modality_identity_loss(logits, identity, torch.tensor([0, 1, 1, 1, 1]))
    torch.testing.assert_close(loss, 2 * torch.log(torch.tensor(4.0)))


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    identity, modality = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = modality_identity_loss(logits, identity, modality)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, modality_identity_loss(logits.float(), identity, modality))
