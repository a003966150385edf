"""DCLNet: where gradients go, what erased pixels do, and which batches it refuses."""

from __future__ import annotations

import pytest
import torch
from references.batches import loss_terms, reorder, training_batch

from vireid_lightning.data.training_data import TrainingData
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import DCLNet


def build(**arguments):
    torch.manual_seed(0)
    return DCLNet(**{"num_classes": 3, "backbone": "resnet10t", "pretrained": False, **arguments})


def reached(module, term):
    """The first parts of the names of the parameters that a term sends a gradient to."""
    module.zero_grad()
    term.backward(retain_graph=True)
    names = [name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    return {".".join(name.split(".")[: 3 if name.startswith("backbone") else 1]) for name in names}


def test_each_term_teaches_what_it_should():
    module = build()
    terms, _ = loss_terms(module, training_batch())
    everything = {f"backbone.stages.{part}" for part in range(5)}
    assert reached(module, terms["identity"]) == {*everything, "neck", "classifier"}
    assert reached(module, terms["center_cluster"]) == everything
    assert reached(module, terms["part"]) == {"parsing"}
    assert reached(module, terms["pixel"]) == {"pixels"}
    assert reached(module, terms["continuity"]) == {"pixels"}
    assert reached(module, terms["dense"]) == {"backbone.stages.0", "backbone.stages.1"}


def test_stem_and_stage_1_exist_per_modality():
    streams = {name.split(".")[2] for name in build().state_dict() if ".visible." in name and "backbone" in name}
    assert streams == {"0", "1"}


def test_the_triplet_is_an_option():
    module, batch = build(metric="triplet"), training_batch()
    terms, weights = loss_terms(module, batch)
    assert module.margin == 0.3
    assert "triplet" in terms
    assert "center_cluster" not in weights


def test_rectification_changes_the_dense_term_alone():
    batch = training_batch()
    plain, _ = loss_terms(build(), batch)
    rectified, _ = loss_terms(build(rectify=True), batch)
    assert {name for name in plain if not torch.equal(plain[name], rectified[name])} == {"dense"}


def test_erased_pixels_are_background():
    module, batch = build(), training_batch()
    batch["erased"] = torch.ones_like(batch["erased"])
    terms, _ = loss_terms(module, batch)
    assert terms["dense"] == 0
    with torch.no_grad():  # no part is left to classify: raising all part logits changes nothing
        for classifier in (module.pixels.visible, module.pixels.infrared):
            classifier.weight[2:] *= 3
    again, _ = loss_terms(module, batch)
    torch.testing.assert_close(again["pixel"], terms["pixel"])


def test_without_a_mask_of_erased_pixels_there_are_none():
    batch = training_batch()
    none = {**batch, "erased": torch.zeros_like(batch["erased"])}
    absent = {name: value for name, value in batch.items() if name != "erased"}
    for wanted, value in zip(loss_terms(build(), none)[0].values(), loss_terms(build(), absent)[0].values()):
        assert torch.equal(wanted, value)


def test_modalities_may_be_interleaved():
    batch = training_batch()
    order = torch.arange(12).view(2, 6).t().flatten()
    wanted, _ = loss_terms(build(), batch)
    terms, _ = loss_terms(build(), reorder(batch, order))
    for name, value in wanted.items():
        # Batch statistics are summed in another order: float32 rounding through the network, and a mask's pixel may
        # lie on its threshold.
        torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-4)


def test_halves_that_do_not_pair_are_refused():
    batch = training_batch()
    batch["identity"][6:] = batch["identity"][6:].roll(1)
    with pytest.raises(VIReIDError, match="i-th visible with the i-th infrared"):
        build().training_step(batch, 0)


def test_a_height_that_does_not_fit_is_refused_before_training():
    data = TrainingData(num_identities=3, image_size=(256, 128), seed=0, steps_per_epoch=1, samples=[])
    with pytest.raises(VIReIDError, match=r"height of 256 .* multiple of 96, such as 192 or 288"):
        build().prepare(data)
    with pytest.raises(VIReIDError, match="height of 128"):
        build().training_step(training_batch(size=(128, 64)), 0)
