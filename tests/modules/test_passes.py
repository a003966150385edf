"""Steps in less memory, or compiled: losses, gradients and statistics of a plain step, of every method."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from references.batches import reorder, training_batch
from references.processes import METHODS
from torch import nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, MPANet, Optimization
from vireid_lightning.modules import Backbone, BackboneSettings, passes

#: Sums over a batch in another order, in float64; the losses that are computed in float32 differ by 1e-7.
TOLERANCE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(method, **arguments):
    torch.manual_seed(0)
    return method(**{"backbone": "test_resnet", "pretrained": False, **METHODS[method], **arguments})


def draw(count=1):
    return [
        {**each, "image": each["image"].double()}
        for each in (training_batch(size=(64, 32), seed=s) for s in range(count))
    ]


def take_steps(module, batches, *, frozen=False, **options):
    """Take a step of SGD on each batch, of each kind; return losses, gradients, and the state behind them."""
    module = copy.deepcopy(module).train()
    Optimization(**options).set_up(module)
    for part in module.modules():
        if frozen and isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    losses, gradients = [], []
    torch.manual_seed(1)
    for batch in batches:
        for kind in module.step_kinds(clusters=3).values():
            kind.enter()
            module.zero_grad()
            terms = module.losses(batch)
            sum(terms.values()).backward()
            losses.append({name: term.detach() for name, term in terms.items()})
            gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
    return losses, gradients, module.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_stages_change_nothing(method):
    module, batches = build(method), draw()
    plain, again = (take_steps(module, batches, gradient_checkpointing=value) for value in (False, True))
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert any(name.endswith("running_mean") for name in again[2])


@pytest.mark.parametrize("method", METHODS)
def test_passes_have_losses_gradients_and_weights_of_the_whole_batch(method):
    module, batches = build(method), draw(1 if method is CMAM else 3)  # a batch of CMAM is two steps
    if method in (Baseline, AGW, MPANet, MMGL):  # in any order of modalities
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        batches[1] = reorder(batches[1], order)
    plain = take_steps(module, batches, frozen=True)
    again = take_steps(module, batches, frozen=True, images_per_pass=5, gradient_checkpointing=True)
    torch.testing.assert_close(again, plain, **TOLERANCE)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_byobnet"])
def test_what_is_computed_again_draws_and_normalises_as_the_first_time(backbone, monkeypatch):
    settings = BackboneSettings(drop_path=None if backbone == "test_byobnet" else 0.5)
    module, batches = build(Baseline, backbone=backbone, backbone_settings=settings), draw(2)
    again = take_steps(module, batches, images_per_pass=4)
    checkpointed = take_steps(module, batches, gradient_checkpointing=True)
    torch.testing.assert_close(checkpointed, take_steps(module, batches), rtol=0, atol=0)
    monkeypatch.setattr(passes, "recompute", lambda module, function, *arguments: function(*arguments))
    kept = take_steps(module, batches, images_per_pass=4)
    torch.testing.assert_close(again, kept, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(again[0], take_steps(module, batches)[0], **TOLERANCE)


@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"images_per_pass": 4}])
def test_under_autocast_too(options, monkeypatch):
    torch.set_default_dtype(torch.float32)
    module, batch = build(AGW), training_batch(size=(64, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = take_steps(module, [batch], **options)
        monkeypatch.setattr(passes, "recompute", lambda module, function, *arguments: function(*arguments))
        torch.testing.assert_close(again, take_steps(module, [batch], **options), rtol=0, atol=0)


def test_a_step_holds_less_memory():
    module, (batch,) = build(Baseline, backbone="resnet10t"), draw()
    held = {}
    for name, options in {
        "plain": {},
        "stages": {"gradient_checkpointing": True},
        "passes": {"images_per_pass": 2},
    }.items():
        Optimization(**options).set_up(module)
        saved = {}

        def note(tensor, saved=saved):
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            module.train().losses(batch)
        held[name] = sum(saved.values()) - sum(each.numel() for each in module.parameters())
    assert held["stages"] < 0.6 * held["plain"]
    assert held["passes"] < 0.6 * held["plain"]


def test_evaluation_and_a_copy_are_neither_compiled_nor_in_passes(monkeypatch):
    module, (batch,) = build(Baseline), draw()
    Optimization(images_per_pass=2).set_up(module)
    monkeypatch.setattr(passes, "recompute", None)
    module.eval()(batch["image"], batch["modality"])
    with torch.no_grad():
        module.train().losses(batch)
    module.backbone.images_per_pass = None
    calls = []
    module.backbone.compile(backend=lambda graph, inputs: calls.append(graph) or graph.forward)
    names = list(module.state_dict())
    module.eval()(batch["image"], batch["modality"])
    copy.deepcopy(module).train().backbone.features(batch["image"], batch["modality"])
    assert not calls
    assert not any("_orig_mod" in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("method", [Baseline, MPANet])
def test_a_compiled_backbone_has_the_same_losses_and_gradients(method, monkeypatch):
    module, batches = build(method), draw()
    plain = take_steps(module, batches)
    original = Backbone.compile
    monkeypatch.setattr(Backbone, "compile", lambda self: original(self, backend="aot_eager"))
    torch._dynamo.reset()
    torch.testing.assert_close(take_steps(module, batches, compile=True), plain, **TOLERANCE)


@pytest.mark.slow
def test_checkpoints_with_and_without_compile_are_each_other_s(monkeypatch, tmp_path):
    original = Backbone.compile
    monkeypatch.setattr(Backbone, "compile", lambda self: original(self, backend="eager"))
    torch._dynamo.reset()
    for number, (first, second) in enumerate([(True, False), (False, True)]):
        module, (batch,) = build(Baseline, optimization=Optimization(compile=first)), draw()
        module.optimization.set_up(module)
        sum(module.train().losses(batch).values()).backward()  # compiled by now, and its statistics have moved
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
        trainer.strategy.connect(module)
        path = tmp_path / f"{number}.ckpt"
        trainer.save_checkpoint(path)
        other = build(Baseline, optimization=Optimization(compile=second))
        other.optimization.set_up(other)
        other.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
        wanted, found = (each.train().losses(batch) for each in (copy.deepcopy(module), other))
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_refuses_what_does_not_go_together():
    for options in ({"gradient_checkpointing": True}, {"images_per_pass": 4}):
        with pytest.raises(VIReIDError, match=r"optimization\.compile goes neither"):
            Optimization(compile=True, **options)
    with pytest.raises(VIReIDError, match="images_per_pass is 1; give at least 2"):
        Optimization(images_per_pass=1)
