from __future__ import annotations

import pytest
import torch
from references.mpanet import total_loss

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import MPANet

TERMS = ("identity", "separation", "center_cluster", "modality_identity", "mutual_mean")


def build(**arguments) -> MPANet:
    return MPANet(**{"num_classes": 4, "backbone": "resnet10t", "pretrained": False, **arguments})


def make_batch(dtype=torch.float32, identities=4, images=2, size=(64, 32)) -> dict:
    count = 2 * identities * images
    return {
        "image": torch.randn(count, 3, *size, dtype=dtype),
        "identity": torch.arange(identities).repeat(2 * images),
        "modality": torch.tensor([0, 1]).repeat_interleave(count // 2),
        "camera": torch.ones(count, dtype=torch.long),
        "index": torch.arange(count),
    }


def separate_means(model: MPANet) -> MPANet:
    """Move the mean classifiers away from the classifiers, as after some training."""
    model.modality_classifiers.visible_mean.normal_(0, 0.1)
    model.modality_classifiers.infrared_mean.normal_(0, 0.1)
    return model


def train_step(model: MPANet, batch: dict, number: int = 0) -> torch.Tensor:
    """The loss of a training step, with the hook that Lightning calls before it."""
    model.on_train_batch_start(batch, number)
    return model.training_step(batch, number)


@pytest.fixture
def logged(monkeypatch):
    """What a model logs, without a trainer."""
    values = {}
    monkeypatch.setattr(MPANet, "log", lambda self, name, value, **_: values.update({name: value}))
    monkeypatch.setattr(MPANet, "log_dict", lambda self, terms, **_: values.update(terms))
    return values


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 130])
def test_training_step_equals_the_slow_reference_with_gradients(logged, monkeypatch, epoch):
    monkeypatch.setattr(MPANet, "current_epoch", epoch - 1)
    model = separate_means(build().double())
    batch = make_batch(torch.float64)
    expected = total_loss(model, batch, epoch)
    gradients = torch.autograd.grad(expected["total"], [p for p in model.parameters() if p.requires_grad])
    loss = train_step(model, batch, 0)
    loss.backward()
    # combine() reports and sums in float32: 2^-24 relative a term.
    for term in TERMS:
        torch.testing.assert_close(logged[f"train/{term}"].double(), expected[term].detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.double(), expected["total"], rtol=1e-6, atol=1e-6)
    named = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    for (name, ours), theirs in zip(named, gradients, strict=True):
        # Float64 on both sides but for the factor of the float32 sum, which is exact for these weights.
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8 * (1 + float(theirs.abs().max())), msg=name)


def test_every_weight_enters_the_total(logged):
    names = dict(zip(TERMS, ("identity", "separation", "center_cluster", "modality", "mutual"), strict=True))
    weights = {f"{name}_weight": value for name, value in zip(names.values(), (2.0, 3.0, 5.0, 7.0, 11.0), strict=True)}
    model = separate_means(build(**weights))
    loss = train_step(model, make_batch(), 0)
    expected = sum(weights[f"{names[term]}_weight"] * logged[f"train/{term}"] for term in TERMS)
    torch.testing.assert_close(loss.detach(), expected)


def test_the_order_of_the_batch_does_not_matter(logged):
    model, batch = separate_means(build().double()), make_batch(torch.float64)
    means = model.modality_classifiers.visible_mean.clone(), model.modality_classifiers.infrared_mean.clone()
    usual = train_step(model, batch, 0)
    for order in (torch.arange(16).reshape(2, 8).T.flatten(), torch.randperm(16)):
        model.modality_classifiers.visible_mean.copy_(means[0])
        model.modality_classifiers.infrared_mean.copy_(means[1])
        shuffled = {name: value[order] for name, value in batch.items()}
        torch.testing.assert_close(train_step(model, shuffled, 0), usual, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_modality_has_a_loss_and_trains_that_classifier_alone(logged, label):
    model, batch = separate_means(build()), make_batch()
    batch["modality"][:] = label
    loss = train_step(model, batch, 0)
    loss.backward()
    assert loss.isfinite()
    present, absent = ("visible", "infrared")[label], ("infrared", "visible")[label]
    assert getattr(model.modality_classifiers, present).weight.grad.abs().sum() > 0
    absent_grad = getattr(model.modality_classifiers, absent).weight.grad
    assert absent_grad is None or not absent_grad.any()


def test_a_batch_of_one_identity_has_a_loss(logged):
    model, batch = build(), make_batch()
    batch["identity"][:] = 2
    train_step(model, batch, 0).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_means_follow_before_they_are_used_and_get_no_gradient(logged):
    model, batch = separate_means(build()), make_batch()
    before = model.modality_classifiers.visible_mean.clone()
    train_step(model, batch, 0).backward()
    expected = 0.8 * before + 0.2 * model.modality_classifiers.visible.weight.detach()
    torch.testing.assert_close(model.modality_classifiers.visible_mean, expected)
    assert not model.modality_classifiers.visible_mean.requires_grad


def test_the_losses_alone_move_no_mean():
    model = separate_means(build())
    before = model.modality_classifiers.visible_mean.clone()
    model.losses(make_batch())
    assert torch.equal(model.modality_classifiers.visible_mean, before)


def test_autocast_keeps_losses_and_embeddings_in_float32(logged):
    model, batch = separate_means(build()), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = train_step(model, batch, 0)
        embedding = model.eval().embed(batch["image"], batch["modality"])
    assert loss.dtype == embedding.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in logged.values())


@pytest.mark.slow
def test_gradient_steps_lower_the_loss(logged):
    model, batch = build(), make_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step in range(8):
        optimizer.zero_grad()
        loss = train_step(model, batch, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "convnext_atto"])
def test_other_backbones_train(logged, backbone):
    model, batch = build(backbone=backbone), make_batch()
    train_step(model, batch, 0).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_embedding_is_the_neck_output_not_normalised():
    model, batch = build(parts=2).double().eval(), make_batch(torch.float64)
    images, modality = batch["image"], batch["modality"]
    with torch.no_grad():
        z = model.embed(images, modality)
        features, _ = model.patterns(model.backbone.features(images, modality)[-1])
        alone = model.embed(images[3:4], modality[3:4])
    assert z.shape == (16, 3 * 512)
    torch.testing.assert_close(z, model.neck(features))
    # In eval mode an image's embedding does not depend on the others.
    torch.testing.assert_close(z[3:4], alone)


def test_state_dict_round_trip_with_the_means():
    first, second = separate_means(build()).eval(), build().eval()
    assert {"modality_classifiers.visible_mean", "modality_classifiers.infrared_mean"} < set(first.state_dict())
    second.load_state_dict(first.state_dict())
    batch = make_batch()
    assert torch.equal(first(batch["image"], batch["modality"]), second(batch["image"], batch["modality"]))
    assert torch.equal(first.modality_classifiers.visible_mean, second.modality_classifiers.visible_mean)


def test_heads_are_the_classifiers():
    model = build()
    heads = {name for name in model.state_dict() if name.startswith(model.heads)}
    assert heads == set(model.state_dict()) - set(build(num_classes=None).state_dict())


def test_without_num_classes_it_embeds_but_does_not_train():
    model = build(num_classes=None).eval()
    batch = make_batch()
    assert model(batch["image"], batch["modality"]).shape == (16, 7 * 512)
    with pytest.raises(VIReIDError, match=r"num_classes=datamodule\.num_identities"):
        model.losses(batch)


def test_defaults_are_the_papers():
    settings = build().hparams
    assert (settings.parts, settings.margin, settings.mutual_weight, settings.mean_momentum) == (6, 0.7, 2.5, 0.2)
    assert settings.optimization["milestones"] == [80, 120]
    assert (settings.optimization["lr"], settings.optimization["weight_decay"]) == (3.5e-4, 5e-4)


def test_bad_arguments_are_refused():
    with pytest.raises(VIReIDError, match="parts is 0"):
        build(parts=0)
    with pytest.raises(VIReIDError, match="mean_momentum"):
        build(mean_momentum=0.0)
    with pytest.raises(VIReIDError, match="no four stages"):
        build(backbone="vit_relpos_small_patch16_224")
