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
