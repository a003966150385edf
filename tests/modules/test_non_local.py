"""Non-local blocks: against the matrix of all positions, at the start, and in stages of any kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vireid_lightning.modules import Backbone, NonLocal, insert_non_local


@pytest.mark.parametrize("inner", [1, 3])
def test_equals_attention_with_its_matrix(inner):
    torch.manual_seed(0)
    block, x = NonLocal(8, inner).double(), torch.randn(2, 8, 5, 4, dtype=torch.double)
    nn.init.normal_(block.norm.weight)
    theta, phi, g = (branch(x).flatten(2) for branch in (block.theta, block.phi, block.g))
    matrix = theta.transpose(1, 2) @ phi / 20
    gathered = (matrix @ g.transpose(1, 2)).transpose(1, 2).reshape(2, inner, 5, 4)
    torch.testing.assert_close(block(x), x + block.norm(block.project(gathered)))


class LikeConvolutions(nn.Module):
    """The block as convolutions and BatchNorm one after another, on the same parameters."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        block, positions = self.block, x[0, 0].numel()
        theta, phi, g = (branch(x).flatten(2) for branch in (block.theta, block.phi, block.g))
        attended = (g @ phi.transpose(1, 2) / positions) @ theta
        return x + block.norm(block.project(attended.unflatten(2, x.shape[2:])))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("inner", [1, 3])
def test_training_is_that_of_convolutions_and_batch_normalisation(inner, memory_format):
    torch.manual_seed(0)
    block = NonLocal(8, inner).double()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    other = LikeConvolutions(copy.deepcopy(block))
    for _ in range(3):
        x = torch.randn(2, 8, 5, 4, dtype=torch.double).contiguous(memory_format=memory_format)
        own, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, wanted = block(own), other(theirs)
        torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
        weight = torch.randn_like(out)
        (out * weight).sum().backward()
        (wanted * weight).sum().backward()
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-9, atol=1e-9)
    for ours, reference in zip(block.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-9, atol=1e-9)
    for ours, reference in zip(block.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(block.eval()(x), other.eval()(x), rtol=1e-10, atol=1e-10)


def test_float32_is_nearer_to_float64_than_batch_normalisation_of_a_large_shift():
    """A shift that BatchNorm subtracts again costs it digits, as many as the shift is larger than the deviation."""
    torch.manual_seed(0)
    exact = NonLocal(16).double()
    nn.init.ones_(exact.norm.weight)
    nn.init.constant_(exact.project.bias, 100.0)
    x = torch.randn(4, 16, 6, 3, dtype=torch.double)
    single = copy.deepcopy(exact).float()
    wanted = exact(x)
    own = (single(x.float()) - wanted).abs().max()
    theirs = (LikeConvolutions(single)(x.float()) - wanted).abs().max()
    assert own < 1e-4 < theirs


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "of bfloat16"])
def test_half_precision_stays_half(autocast):
    torch.manual_seed(0)
    exact = NonLocal(16).double()
    nn.init.ones_(exact.norm.weight)
    x = torch.randn(4, 16, 6, 3, dtype=torch.double)
    block = copy.deepcopy(exact).float() if autocast else copy.deepcopy(exact).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = block(x.bfloat16())
    assert out.dtype == torch.bfloat16
    # Attention is of unit variance, and a handful of roundings of 2**-8 of it, of theta, phi and g, go into it.
    assert (out - exact(x)).abs().mean() < 8 * 2**-8
    assert block.norm.running_var.isfinite().all()


def test_one_value_is_refused_as_batch_normalisation_refuses_it():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        NonLocal(8)(torch.randn(1, 8, 1, 1))


def test_a_fresh_block_changes_nothing():
    x = torch.randn(2, 8, 5, 4)
    assert torch.equal(NonLocal(8)(x), x)


def test_goes_behind_the_last_blocks_and_renames_nothing():
    backbone = Backbone("resnet50", pretrained=False)
    before = set(backbone.state_dict())
    inserted = insert_non_local(backbone.stages[3], backbone.channels[3], 3)
    assert [name for name, _ in backbone.stages[3][0].named_children()] == (
        ["0", "1", "2", "3", "3_non_local", "4", "4_non_local", "5", "5_non_local"]
    )
    assert list(backbone.stages[3][0].children())[4::2] == inserted
    assert before < set(backbone.state_dict())


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "regnetx_002", "efficientnet_b0"]
)
def test_any_backbone_takes_as_many_as_it_has_blocks(name):
    backbone = Backbone(name, pretrained=False)
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    wanted = backbone.eval().features(images, modality)[-1]
    inserted = [insert_non_local(backbone.stages[stage], backbone.channels[stage], 99) for stage in (2, 3)]
    assert all(blocks for blocks in inserted)
    torch.testing.assert_close(backbone.eval().features(images, modality)[-1], wanted)
