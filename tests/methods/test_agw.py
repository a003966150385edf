"""AGW: what it adds to the baseline."""

from __future__ import annotations

import pytest
import torch
from references.batches import loss_terms, training_batch
from references.weighted_regularized_triplet import weighted_regularized_triplet_reference

from vireid_lightning.methods import AGW
from vireid_lightning.modules import NonLocal


@pytest.mark.parametrize("form", ["release", "softmax"])
def test_the_triplet_acts_on_gem_pooled_maps(form):
    torch.manual_seed(0)
    module, batch = AGW(num_classes=3, backbone="resnet10t", pretrained=False, triplet_form=form), training_batch()
    with torch.no_grad():
        terms, _ = loss_terms(module, batch)
        maps = module.backbone.features(batch["image"], batch["modality"])[-1]
    pooled = (maps.pow(3).mean((2, 3)) + 1e-12) ** (1 / 3)
    wanted = weighted_regularized_triplet_reference(pooled, batch["identity"], form)
    torch.testing.assert_close(terms["triplet"], wanted.float())


def test_non_local_blocks_of_resnet50_lie_where_the_paper_has_them():
    module = AGW(num_classes=3, backbone="resnet50", pretrained=False)
    places = [name for name, part in module.named_modules() if isinstance(part, NonLocal)]
    assert places == [
        *(f"backbone.stages.2.layer2.{block}_non_local" for block in (2, 3)),
        *(f"backbone.stages.3.layer3.{block}_non_local" for block in (3, 4, 5)),
    ]
    assert all(module.get_submodule(place).theta.out_channels == 1 for place in places)


def test_the_number_and_width_of_non_local_blocks_are_arguments():
    module = AGW(num_classes=3, backbone="resnet10t", pretrained=False, non_local_blocks=(0, 1), non_local_channels=4)
    blocks = [part for part in module.modules() if isinstance(part, NonLocal)]
    assert [block.theta.out_channels for block in blocks] == [4]
