from __future__ import annotations

import torch
from references.mpanet import patterns

from vireid_lightning.modules import PatternAlignment


def test_value_and_gradient_equal_six_masked_copies():
    module = PatternAlignment(8).double()
    x = torch.randn(3, 8, 4, 2, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    torch.nn.init.normal_(module.masks.bias)
    fast = module(x)
    slow = patterns(x, module.masks.weight, module.masks.bias)
    inputs = (x, module.masks.weight, module.masks.bias)
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs)
        weights = torch.randn_like(ours)
        gradients = [torch.autograd.grad((y * weights).sum(), inputs, retain_graph=True) for y in (ours, theirs)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


def test_shapes_and_start():
    module = PatternAlignment(2048, parts=6)
    assert module.out_features == 14336
    assert torch.equal(module.masks.bias, torch.zeros(6))
    vectors, masks = module(torch.randn(2, 2048, 3, 2))
    assert vectors.shape == (2, 14336)
    assert masks.shape == (2, 6, 3, 2)


def test_the_last_vector_is_the_global_average():
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(PatternAlignment(5, parts=3)(x)[0][:, -5:], x.mean((2, 3)))


def test_embeddings_and_masks_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors, masks = PatternAlignment(8)(torch.randn(2, 8, 4, 2).bfloat16())
    assert vectors.dtype == masks.dtype == torch.float32
