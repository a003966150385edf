from __future__ import annotations

import pytest
import torch
from references.mpanet import alleviate

from vireid_lightning.modules import ModalityAlleviation


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradient_equal_the_slow_reference(memory_format):
    module = ModalityAlleviation(32).double()
    x = torch.randn(3, 32, 4, 5, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    fast = module(x)
    slow = alleviate(x, module.attention[0].weight, module.attention[2].weight)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(fast)
    inputs = (x, module.attention[0].weight, module.attention[2].weight)
    for ours, theirs in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_parameters_and_shapes():
    module = ModalityAlleviation(64)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "attention.0.weight": (4, 64, 1, 1),
        "attention.2.weight": (64, 4, 1, 1),
    }
    assert not list(module.buffers())
    assert ModalityAlleviation(8).attention[0].out_channels == 1


def test_each_image_is_treated_alone_in_training_and_evaluation():
    module = ModalityAlleviation(16)
    x = torch.randn(4, 16, 3, 3)
    together = module(x)
    torch.testing.assert_close(together[2:3], module(x[2:3]))
    assert torch.equal(together, module.eval()(x))


def test_constant_channels_and_single_pixels_stay_finite():
    module = ModalityAlleviation(16)
    for x in (torch.ones(2, 16, 3, 3), torch.randn(2, 16, 1, 1)):
        x.requires_grad_()
        out = module(x)
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad.isfinite().all()


def test_half_precision_maps_keep_their_type():
    module = ModalityAlleviation(16)
    x = torch.randn(2, 16, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x.bfloat16())
    assert out.dtype == torch.bfloat16
    # bfloat16 has 8 significant bits; values of about 3 pass three roundings.
    torch.testing.assert_close(out.float(), module(x), rtol=0, atol=0.06)
