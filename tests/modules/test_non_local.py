"""Non-local blocks: against the matrix of all positions, at the start, and in stages of any kind."""

from __future__ import annotations

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
