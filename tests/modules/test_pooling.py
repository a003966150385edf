from __future__ import annotations

import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules import GeM, GlobalAveragePooling


def test_gem_pixel_by_pixel():
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    expected = torch.stack(
        [torch.stack([(sum(v**3 for v in channel.flatten()) / 8 + 1e-12) ** (1 / 3) for channel in row]) for row in x]
    )
    torch.testing.assert_close(GeM(3.0)(x), expected)


def test_gem_of_p_1_is_the_average_and_of_a_large_p_the_maximum():
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(GeM(1.0)(x), GlobalAveragePooling()(x), rtol=0, atol=2e-12)
    # The mean of 8 values to the power 60 is at least an eighth of the largest: 8^(-1/60) = 0.966.
    assert (GeM(60.0)(x) >= 0.96 * x.amax((2, 3))).all()


@pytest.mark.parametrize("learnable", [False, True])
def test_a_channel_of_zeros_has_a_gradient_of_zero(learnable):
    pooling = GeM(3.0, learnable=learnable)
    x = torch.rand(1, 2, 3, 3)
    x[:, 0] = 0
    x.requires_grad_()
    pooling(x).sum().backward()
    assert x.grad.isfinite().all()
    assert torch.equal(x.grad[:, 0], torch.zeros(1, 3, 3))
    if learnable:
        assert pooling.p.grad.isfinite()


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 6.0])
def test_gradients_are_those_of_pytorchs_operators(p, learnable):
    torch.manual_seed(0)
    pooling = GeM(p, learnable=learnable).double()
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    if p > 1:  # where PyTorch's releases agree on the gradient at 0
        x[0, 0, 0] = 0
        x[1, 2] = 0
    weight = torch.randn(2, 3, dtype=torch.float64)
    exponent = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    own, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    (pooling(own) * weight).sum().backward()
    ((plain.clamp(min=0).pow(exponent).mean((2, 3)) + 1e-12).pow(1 / exponent) * weight).sum().backward()
    torch.testing.assert_close(own.grad, plain.grad, rtol=1e-12, atol=1e-12)
    if learnable:
        torch.testing.assert_close(pooling.p.grad, exponent.grad, rtol=1e-12, atol=1e-12)


def test_negative_values_count_as_zero():
    torch.testing.assert_close(GeM()(torch.tensor([[[[-5.0, 2.0]]]])), GeM()(torch.tensor([[[[0.0, 2.0]]]])))


def test_gem_keeps_float32_where_cubes_overflow_half_precision():
    x = torch.full((1, 1, 2, 2), 100.0, dtype=torch.float16)
    torch.testing.assert_close(GeM()(x), torch.tensor([[100.0]]))


def test_only_a_learnable_exponent_is_a_parameter():
    assert not list(GeM().parameters())
    assert [name for name, _ in GeM(learnable=True).named_parameters()] == ["p"]
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(GeM(2.5, learnable=True).double(), (x.requires_grad_(),))
    with pytest.raises(VIReIDError, match="above 0"):
        GeM(0.0)


def test_a_signed_map_is_pooled_with_its_signs():
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    pooling = GeM(signed=True)
    positive, negative = x.clamp(min=0), (-x).clamp(min=0)
    expected = positive.pow(3).mean((2, 3)).pow(1 / 3) - negative.pow(3).mean((2, 3)).pow(1 / 3)
    # The 1e-12 under the root moves each mean by at most its own root, 1e-4, and by 1e-12 / (3 m^2) for a mean of m^3.
    torch.testing.assert_close(pooling(x), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(pooling(-x), -pooling(x))
    torch.testing.assert_close(GeM(1.0, signed=True)(x), x.mean((2, 3)))
    # The mean of 8 values to the power 60 is at least an eighth of the largest: 8^(-1/60) = 0.966.
    large = x.sign() * (1 + x.abs())
    high, largest = GeM(60.0, signed=True)(large), 2 * float(large.abs().max())
    torch.testing.assert_close(high, large.amax((2, 3)) + large.amin((2, 3)), rtol=0, atol=0.034 * largest)
    assert torch.autograd.gradcheck(GeM(signed=True), (x.requires_grad_(),))


def test_values_that_cancel_out_have_a_bounded_gradient():
    x = torch.tensor([[[[1.0, -1.0]]]], requires_grad=True)
    GeM(signed=True)(x).sum().backward()
    # Each half is a mean of one value and a 0: (1/2)^(1/3) of the value.
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.5 ** (1 / 3)))


def test_a_state_dict_says_whether_maps_are_signed_and_an_older_one_that_they_are_not():
    signed = GeM(signed=True)
    assert list(signed.state_dict()) == ["signs"]
    assert list(GeM().state_dict()) == []
    again = GeM(signed=True)
    again.load_state_dict(signed.state_dict())
    assert again.signed
    again.load_state_dict({})
    assert not again.signed
    assert list(again.state_dict()) == []
