"""Every method with every kind of backbone: it trains, or says in one sentence what it needs."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from references.batches import loss_terms, training_batch
from references.fake_dataset import write_fake_dataset
from torch import nn

from vireid_lightning.data import CrossModalityDataModule, Source
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import (
    AGW,
    CMAM,
    MMGL,
    Baseline,
    DCLNet,
    MPANet,
    Optimization,
    SourceStage,
    TargetStage,
    load_method,
)
from vireid_lightning.modules import Backbone, BackboneSettings

CLASS = BackboneSettings(token="class")
SWIN, HRNET = "swin_tiny_patch4_window7_224", "hrnet_w18_small"


class Own(nn.Module):
    """A network of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 8, 4), (8, 8, 1), (8, 16, 2), (16, 24, 2), (24, 32, 1)]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, s in sizes
        )


def build(method, backbone, **arguments):
    torch.manual_seed(0)
    classes = {} if method in (MMGL, CMAM) else {"num_classes": 3}
    return method(**{"backbone": backbone, "pretrained": False, **classes, **arguments})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("method", "backbone", "arguments"),
    [
        (Baseline, "test_vit", {}),
        (Baseline, "test_vit", {"backbone_settings": CLASS}),
        (Baseline, "test_vit2", {}),  # a register, the norm behind the pooling
        (Baseline, "test_convnext", {}),
        (Baseline, Own, {}),
        slow(Baseline, SWIN, {}),
        slow(Baseline, HRNET, {}),
        slow(Baseline, "eva02_tiny_patch14_224", {}),
        (MPANet, "test_vit", {}),
        (MPANet, "test_vit3", {}),
        (MPANet, Own, {}),
        slow(MPANet, SWIN, {}),
        slow(MPANet, HRNET, {}),
        (MMGL, "test_vit", {}),
        (MMGL, Own, {}),
        slow(MMGL, SWIN, {}),
        (AGW, "test_vit", {"non_local_blocks": (0, 0)}),
        (AGW, Own, {}),
        (DCLNet, Own, {}),
        slow(DCLNet, SWIN, {}),
    ],
)
def test_a_step_of_each_method_reaches_every_parameter(method, backbone, arguments):
    module = build(method, backbone, **arguments)
    size = (84, 42) if "14" in str(backbone) else (96, 64)
    terms, weights = loss_terms(module, training_batch(size=size))
    sum(weights.get(name, 1.0) * term for name, term in terms.items()).backward()
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(term.isfinite() for term in terms.values())
    embedding = module.eval()(torch.randn(2, 3, *size), torch.tensor([1, 0]))
    assert embedding.isfinite().all()


def test_stripes_of_overlapping_patches():
    module = build(MMGL, "test_vit", backbone_settings=BackboneSettings(patch_stride=8))
    # (120 - 16) / 8 + 1 = 14 rows for 6 stripes; the heights that 6 divides with 12 and 18 rows are 108 and 156
    with pytest.raises(
        VIReIDError, match="the 14 rows of its map of stride 8; set image_size to a height that is 108 or 156"
    ):
        module.losses(training_batch(size=(120, 48)))
    assert module.losses(training_batch(size=(108, 48)))["cycle_contrastive"].isfinite()


@pytest.mark.parametrize(
    ("method", "backbone", "arguments", "message"),
    [
        (AGW, "test_vit", {}, "AGW puts non-local blocks .* convolutional .*'test_vit' has none such"),
        (AGW, "test_mambaout", {}, "AGW puts non-local blocks"),
        (DCLNet, "test_vit", {}, "DCLNet contrasts the pixels of stage 1's map, which must have a stride of 4"),
        (MPANet, "test_vit", {"backbone_settings": CLASS}, "MPANet .* no use for a class token"),
        (MMGL, "test_vit", {"backbone_settings": CLASS}, "MMGL .* no use for a class token"),
        (Baseline, "no_such.Network", {}, "class's import path"),
    ],
)
def test_what_a_method_needs_is_one_sentence(method, backbone, arguments, message):
    with pytest.raises(VIReIDError, match=message):
        build(method, backbone, **arguments)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_fake_dataset(tmp_path_factory.mktemp("backbones") / "fake", (64, 32))


def fit(module, dataset, size=(64, 32), epochs=1, source=None, **arguments):
    data = CrossModalityDataModule(
        dataset,
        image_size=size,
        identities_per_batch=2,
        images_per_modality=2,
        steps_per_epoch=2,
        num_workers=0,
        source=source,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data, **arguments)
    return trainer


@pytest.mark.slow
def test_cmam_trains_with_a_transformer(dataset):
    source = SourceStage(steps=2, warmup_steps=1, constant_steps=1, clustering="kmeans", clusters=4)
    target = TargetStage(dbscan_steps=0, kmeans_steps=2, warmup_steps=1, clusters=4)
    module = build(CMAM, "test_vit", source=source, target=target)
    before = module.gray.backbone.stages[3].blocks[0].attn.qkv.weight.detach().clone()
    visible = Source(dataset, identities_per_batch=2, images_per_identity=3)
    trainer = fit(module, dataset, epochs=3, source=visible)
    assert {"train/triplet", "train/contrast_gray"} <= set(trainer.callback_metrics)
    assert not torch.equal(before, module.gray.backbone.stages[3].blocks[0].attn.qkv.weight)
    assert module.gray.backbone.stages[1].embedding.position.grid.shape[2:] == (4, 2)


@pytest.mark.slow
def test_positions_are_trained_at_the_images_size_stored_and_handed_on(dataset, tmp_path):
    decaying = Optimization(lr=1e-3, layer_decay=0.5)
    module = build(Baseline, "test_vit", num_classes=6, optimization=decaying)
    trainer = fit(module, dataset)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = load_method(tmp_path / "a.ckpt")
    grid = again.backbone.stages[1].embedding.position.grid
    assert grid.shape == (1, 64, 4, 2)
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(again(images, modality), module.eval()(images, modality))
    # The same run goes on, and another method at another size starts from it.
    resumed = build(Baseline, "test_vit", num_classes=6, optimization=decaying)
    fit(resumed, dataset, epochs=2, ckpt_path=tmp_path / "a.ckpt")
    assert not torch.equal(resumed.backbone.stages[1].embedding.position.grid, grid)
    other = build(MMGL, "test_vit", init_from=str(tmp_path / "a.ckpt"), stripes=2, optimization=Optimization(lr=1e-9))
    fit(other, dataset, size=(128, 48))
    handed = other.backbone.stages[1].embedding.position.grid
    wanted = torch.nn.functional.interpolate(grid, (8, 3), mode="bicubic", antialias=True)
    torch.testing.assert_close(handed, wanted, rtol=0, atol=1e-6)  # Adam at 1e-9 moves a parameter by 2e-9
    weight = "stages.0.infrared.proj.weight"
    torch.testing.assert_close(
        other.backbone.state_dict()[weight], again.backbone.state_dict()[weight], rtol=0, atol=1e-6
    )


def test_layers_nearer_to_the_images_learn_more_slowly():
    module = build(Baseline, "test_vit", optimization=Optimization(lr=1.0, lr_factors={"neck": 10.0}, layer_decay=0.5))
    groups = module.optimization.build(module, 1)["optimizer"].param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in module.named_parameters() if p.requires_grad}
    stages = "backbone.stages."
    assert named["neck.weight"] == 10
    assert named["classifier.weight"] == named[f"{stages}4.norm.weight"] == 1
    # 6 blocks in four quarters: 2, 1, 1 and 2 of them, by Python's rounding of halves to even
    last = sorted((name for name in named if name.endswith("attn.qkv.weight")), key=lambda n: named[n])
    assert [named[name] for name in last] == [0.5**power for power in range(6, 0, -1)]
    assert named[f"{stages}0.visible.proj.weight"] == named[f"{stages}1.embedding.prefix"] == 0.5**7
    plain = build(Baseline, "test_vit", optimization=Optimization(lr=1.0, lr_factors={"neck": 10.0}))
    assert len(plain.optimization.build(plain, 1)["optimizer"].param_groups) == 2
    both = build(CMAM, "resnet10t", optimization=Optimization(schedule="constant", layer_decay=0.5))
    decays = both.optimization.layer_decays(both)
    assert decays["backbone.stages.0.conv1.0.weight"] == decays["gray.backbone.stages.0.conv1.0.weight"] == 0.5**5


def write(module, path):
    checkpoint = {"pytorch-lightning_version": "2.6.0", "state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_no_checkpoint_decides_what_is_imported(tmp_path, monkeypatch):
    module = build(Baseline, Own).eval()
    path = write(module, tmp_path / "a.ckpt")
    with pytest.raises(VIReIDError, match=r"'\S*Own', which is none of timm's.*load_method\(path, backbone=Own\)"):
        load_method(path)
    with pytest.raises(VIReIDError, match="no model named"):
        Baseline.load_from_checkpoint(path)
    again = load_method(path, backbone=Own)
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    assert torch.equal(again(images, modality), module(images, modality))
    with pytest.raises(VIReIDError, match="holds the backbone 'test_resnet'"):
        load_method(write(build(Baseline, "test_resnet"), tmp_path / "b.ckpt"), backbone=Own)


def test_a_checkpoint_from_before_signed_pooling_pools_as_it_did(tmp_path):
    module = build(AGW, "test_convnext").eval()
    assert isinstance(module.backbone, Backbone)
    assert module.pool.signed
    checkpoint = {"state_dict": {k: v for k, v in module.state_dict().items() if k != "pool.signs"}}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "old.ckpt")
    old, new = load_method(tmp_path / "old.ckpt"), load_method(write(module, tmp_path / "new.ckpt"))
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    maps = module.backbone.features(images, modality)[-1]
    clamped = (maps.clamp(min=0).pow(3).mean((2, 3)) + 1e-12).pow(1 / 3)
    torch.testing.assert_close(old.pool(maps), clamped)
    assert not old.pool.signed
    assert torch.equal(new(images, modality), module(images, modality))
    assert "pool.signs" not in build(AGW, "resnet10t").state_dict()
