"""Baseline: its two terms written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from references.batches import loss_terms, training_batch

from vireid_lightning.methods import Baseline


def test_terms_are_cross_entropy_behind_and_triplet_before_the_neck():
    torch.manual_seed(0)
    module, batch = Baseline(num_classes=3, backbone="resnet10t", pretrained=False), training_batch()
    with torch.no_grad():
        terms, weights = loss_terms(module, batch)
        pooled = module.backbone.features(batch["image"], batch["modality"])[-1].mean((2, 3))
        z = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()
        logits, identity = z @ module.classifier.weight.T, batch["identity"]
    triplets = []
    for i, y in enumerate(identity):
        distances = (pooled - pooled[i]).norm(dim=1)
        triplets.append(F.relu(0.3 + distances[identity == y].max() - distances[identity != y].min()))
    torch.testing.assert_close(terms["identity"], F.cross_entropy(logits, identity))
    torch.testing.assert_close(terms["triplet"], torch.stack(triplets).mean())
    assert weights == {"identity": 1.0, "triplet": 1.0}


def test_the_stem_alone_exists_per_modality_and_heads_are_the_classifier():
    module = Baseline(num_classes=3, backbone="resnet10t", pretrained=False)
    streams = {name.split(".")[2] for name in module.state_dict() if ".visible." in name or ".infrared." in name}
    assert streams == {"0"}
    assert [name for name in module.state_dict() if name.startswith(module.heads)] == ["classifier.weight"]
    assert not module.neck.bias.requires_grad
