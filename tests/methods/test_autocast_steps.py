"""The losses of every method under bf16 and fp16 autocast, with maps of the scales 1e-3 to 1e3: all finite."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.batches import training_batch
from references.processes import METHODS

from vireid_lightning.methods import CMAM
from vireid_lightning.methods.cmam.schedule import Timeline
from vireid_lightning.modules.backbone import Backbone

SUPERVISED = [method for method in METHODS if method is not CMAM]


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0, 1e2, 1e3])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("method", SUPERVISED)
def test_losses_and_gradients_are_finite(method, precision, scale, monkeypatch):
    torch.manual_seed(0)
    module = method(backbone="test_resnet", pretrained=False, **METHODS[method]).train()
    check_a_step(module, precision, scale, monkeypatch)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("stage", ["source", "target"])
def test_losses_and_gradients_of_both_stages_of_cmam_are_finite(stage, precision, scale, monkeypatch):
    torch.manual_seed(0)
    module = CMAM(backbone="test_resnet", pretrained=False, **METHODS[CMAM]).train()
    timeline = Timeline(module.source, module.target, steps_per_epoch=3, lr=3.5e-4)
    module.enter(next(phase for phase in timeline.phases if phase.domain == stage))
    rows = [F.normalize(torch.randn(3, module.backbone.channels[-1])) for _ in range(2)]
    module._prototypes, module._classifiers = rows, [torch.nn.Parameter(row.clone()) for row in rows]
    check_a_step(module, precision, scale, monkeypatch)


def check_a_step(module, precision, scale, monkeypatch):
    original = Backbone.features_and_token

    def scaled(self, images, modality):
        maps, token = original(self, images, modality)
        return [scale * each for each in maps], token

    monkeypatch.setattr(Backbone, "features_and_token", scaled)
    with torch.autocast("cpu", dtype=precision):
        terms = module.losses(training_batch(size=(64, 32)))
        total = sum(terms.values())
    total.backward()
    assert all(term.isfinite() for term in terms.values())
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
