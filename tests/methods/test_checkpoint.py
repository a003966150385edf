"""Checkpoints stand on their own, hand their encoder on, and nothing in one is executed."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, FORMAT, load_weights_file, read_checkpoint
from vireid_lightning.methods.loading import load_method
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.modules import Backbone


class Tiny(ReIDModule):
    heads = ("classifier",)

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        streams: int = 1,
        backbone: str = "resnet10t",
        pretrained: bool = False,
        optimization: Optimization = Optimization(),
        init_from: str | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, optimization=optimization, init_from=init_from)
        self.backbone = Backbone(backbone, pretrained=pretrained, two_stream_until=streams)
        if num_classes is not None:
            self.classifier = nn.Linear(self.backbone.channels[-1], num_classes)

    def embed(self, images, modality):
        return F.normalize(self.backbone.features(images, modality)[-1].mean((2, 3)))

    def losses(self, batch):
        return {"identity": batch["image"].mean()}


def write(module: ReIDModule, path) -> str:
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def test_constructor_arguments_are_plain_and_no_weights_are_looked_for_again(tmp_path):
    module = Tiny(num_classes=5, optimization=Optimization(milestones=[3]), init_from="gone.ckpt")
    checkpoint = read_checkpoint(write(module, tmp_path / "a.ckpt"))
    arguments = checkpoint["hyper_parameters"]
    assert arguments["num_classes"] == 5
    assert arguments["optimization"]["milestones"] == [3]
    assert arguments["init_from"] is None
    assert checkpoint[BLOCK]["method"] == "Tiny"
    again = Tiny(**arguments)
    again.load_state_dict(checkpoint["state_dict"])
    assert again.optimization == module.optimization


def test_init_from_hands_on_the_encoder_and_keeps_fresh_heads(tmp_path):
    source, target = Tiny(num_classes=5), Tiny(num_classes=7)
    before = target.classifier.weight.clone()
    account = target.start_from(write(source, tmp_path / "a.ckpt"))
    assert "fresh: classifier" in account
    assert torch.equal(target.classifier.weight, before)
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(value, target.backbone.state_dict()[name]), name


def test_the_line_of_init_from_says_how_much_of_a_part_is_fresh(tmp_path):
    """What is loaded in part is neither called fresh nor not used as a whole."""
    source, target = Tiny(num_classes=5), Tiny(num_classes=7)
    path = write(source, tmp_path / "a.ckpt")
    content = torch.load(path, weights_only=True)
    encoder = [name for name in target.state_dict() if name.startswith("backbone.")]
    last = encoder[-1]
    content["state_dict"][f"backbone.renamed.{last}"] = content["state_dict"].pop(last)
    torch.save(content, path)
    account = target.start_from(path)
    assert f"fresh: 1 of the {len(encoder)} tensors of backbone, classifier;" in account
    assert f"not used: 1 of the {len(encoder)} tensors of backbone, classifier." in account


@pytest.mark.parametrize(("source_streams", "target_streams"), [(0, 2), (2, 0), (1, 2)])
def test_init_from_across_streams(source_streams, target_streams, tmp_path):
    source, target = Tiny(streams=source_streams), Tiny(streams=target_streams)
    with torch.no_grad():  # two copies that differ show which of them was taken
        for name, value in source.named_parameters():
            if ".infrared." in name:
                value.add_(1.0)
    target.start_from(write(source, tmp_path / "a.ckpt"))
    images = torch.randn(2, 3, 64, 32)
    source.eval(), target.eval()
    visible = torch.zeros(2, dtype=torch.long)
    assert torch.equal(source.embed(images, visible), target.embed(images, visible))
    if target_streams >= source_streams:
        assert torch.equal(source.embed(images, visible + 1), target.embed(images, visible + 1))


def test_init_from_another_backbone_is_refused(tmp_path):
    path = write(Tiny(backbone="mobilenetv3_small_050"), tmp_path / "a.ckpt")
    with pytest.raises(VIReIDError, match="use the same backbone"):
        Tiny().start_from(path)


def test_a_users_own_method_is_loaded_by_its_class_and_never_by_its_name(tmp_path):
    module = Tiny(num_classes=5).eval()
    path = write(module, tmp_path / "a.ckpt")
    with pytest.raises(VIReIDError, match=r"'Tiny', which is none of this package's.*load_method\(path, method=Tiny\)"):
        load_method(path)
    again = load_method(path, method=Tiny)
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    assert type(again) is Tiny
    assert not again.training
    assert torch.equal(again.embed(images, modality), module.embed(images, modality))


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    class Other(Tiny):
        pass

    with pytest.raises(VIReIDError, match="holds the method 'Tiny', not Other"):
        load_method(write(Tiny(), tmp_path / "a.ckpt"), method=Other)


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "x": RunsCode()}, "bad.ckpt")
    with pytest.raises(VIReIDError, match="would run code"):
        load_weights_file("bad.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 a broken archive"])
def test_a_file_that_is_no_checkpoint(content, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(VIReIDError, match="is not a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_cut_short(tmp_path):
    path = tmp_path / "a.ckpt"
    write(Tiny(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VIReIDError, match="is not a checkpoint"):
        read_checkpoint(path)


def test_checkpoints_of_other_code_and_of_another_format(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(VIReIDError, match="import-checkpoint"):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, BLOCK: {"format": FORMAT + 1, "version": "9"}}, tmp_path / "new.ckpt")
    with pytest.raises(VIReIDError, match="written by vireid-lightning 9"):
        read_checkpoint(tmp_path / "new.ckpt")
    with pytest.raises(VIReIDError, match="There is no checkpoint at"):
        read_checkpoint(tmp_path / "absent.ckpt")


def test_a_loss_that_is_not_finite_stops_with_term_and_images():
    module = Tiny(num_classes=2)
    module.log = module.log_dict = lambda *a, **k: None
    batch = {"identity": torch.tensor([0, 1]), "index": torch.tensor([4, 7])}

    class Trainer:
        global_step, current_epoch, datamodule = 12, 3, None

    module._trainer = Trainer()
    terms = {"identity": torch.tensor(1.0), "triplet": torch.tensor(float("nan"))}
    with pytest.raises(VIReIDError, match=r"step 12 of epoch 3 \(triplet=nan\).*#4, #7"):
        module.combine(terms, {}, batch)


def test_combine_weighs_its_terms_and_passes_gradients():
    module = Tiny(num_classes=2)
    module.log = module.log_dict = lambda *a, **k: None
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    loss = module.combine({"a": a, "b": b}, {"b": 0.5}, {"identity": torch.tensor([0])})
    loss.backward()
    assert (loss.item(), a.grad.item(), b.grad.item()) == (3.5, 1.0, 0.5)
