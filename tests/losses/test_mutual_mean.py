from __future__ import annotations

import torch
from references.mpanet import mutual_mean

from vireid_lightning.losses import mutual_mean_loss
from vireid_lightning.modules import ModalityClassifiers


def test_value_and_gradient_equal_the_slow_reference():
    target = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    prediction = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    fast, slow = mutual_mean_loss(target, prediction), mutual_mean(target, prediction)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(slow, target)[0]
    fast.backward()
    torch.testing.assert_close(target.grad, expected)
    assert prediction.grad is None


def test_equal_predictions_cost_nothing_and_others_something():
    logits = torch.randn(4, 5)
    torch.testing.assert_close(mutual_mean_loss(logits, logits + 3.0), torch.tensor(0.0))
    assert mutual_mean_loss(logits, -logits) > 0


def test_confident_logits_stay_finite():
    target = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    loss = mutual_mean_loss(target, -target)
    loss.backward()
    assert loss == 1000.0
    assert target.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    target, prediction = torch.randn(2, 4, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mutual_mean_loss(target, prediction)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, mutual_mean_loss(target.float(), prediction.float()))


def test_gradient_flows_through_the_target_alone():
    classifiers = ModalityClassifiers(4, 3).double()
    classifiers.visible_mean.normal_()
    classifiers.infrared_mean.normal_()
    z, modality = torch.randn(4, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 1, 0])
    own, other = classifiers(z, modality)
    assert own.requires_grad
    assert not other.requires_grad
    mutual_mean_loss(own, other).backward()
    assert classifiers.visible.weight.grad.abs().sum() > 0
    assert classifiers.infrared.weight.grad.abs().sum() > 0
    # The same with the prediction's z held constant by hand.
    constant = other.clone()
    again = z.detach().requires_grad_()
    mutual_mean(classifiers(again, modality)[0], constant).backward()
    torch.testing.assert_close(z.grad, again.grad)
