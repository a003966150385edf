from __future__ import annotations

import io
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from references.fake_dataset import FakeDataset, write_fake_dataset
from rich.console import Console

from vireid_lightning.callbacks import RetrievalMetrics, RunSummary
from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import cycle_contrastive_loss, cycle_return_loss
from vireid_lightning.methods import AGW, MMGL, Baseline, DCLNet, MPANet, Optimization, load_method
from vireid_lightning.methods.checkpoint import read_checkpoint
from vireid_lightning.modules import draw_orders
from vireid_lightning.types import Sample

BACKBONE = "resnet10t"
SIZE = (96, 32)


class Unlabelled(FakeDataset):
    """The same images, without identities."""

    labelled = False

    def identities(self, split):
        return [] if split == "train" else super().identities(split)

    def samples(self, split):
        kept = super().samples(split)
        return [Sample(s.path, -1, s.modality, s.camera) for s in kept] if split == "train" else kept


class OneModality(FakeDataset):
    def samples(self, split):
        return [sample for sample in super().samples(split) if split != "train" or sample.modality == 0]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmgl") / "root"
    write_fake_dataset(folder, SIZE)
    return folder


@pytest.fixture(scope="session")
def checkpoint(root, tmp_path_factory):
    """A two-stream checkpoint whose two stems differ."""
    path = tmp_path_factory.mktemp("checkpoint") / "mmgl.ckpt"
    trainer = fit(build(), datamodule(FakeDataset(root)), tmp_path_factory.mktemp("run"))
    trainer.save_checkpoint(path)
    return path


def build(seed=0, **arguments):
    torch.manual_seed(seed)
    optimization = Optimization(optimizer="sgd", lr=0.01, schedule="cosine")
    return MMGL(**{"backbone": BACKBONE, "part_dimension": 16, "optimization": optimization, **arguments})


def datamodule(dataset, **arguments):
    defaults = {"identities_per_batch": 2, "images_per_modality": 2, "image_size": SIZE, "steps_per_epoch": 2}
    defaults |= {"visible_transforms": "agw", "infrared_transforms": "agw", "num_workers": 0}
    return CrossModalityDataModule(dataset, **{**defaults, **arguments})


def fit(module, data, folder, epochs=1, ckpt_path=None, callbacks=(), **arguments):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **arguments,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*num_workers.*|.*does not have many workers.*|.*log_every_n_steps.*")
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def batch(visible=3, infrared=3):
    count = visible + infrared
    return {
        "image": torch.randn(count, 3, *SIZE),
        "identity": torch.full((count,), -1),
        "modality": torch.tensor([0] * visible + [1] * infrared),
        "camera": torch.full((count,), -1),
        "index": torch.arange(count),
    }


def same_weights(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


@pytest.mark.slow
def test_trains_logs_everything_and_is_rebuilt_from_its_checkpoint(root, tmp_path):
    module = build()
    trainer = fit(module, datamodule(FakeDataset(root)), tmp_path, callbacks=[RetrievalMetrics()])
    names = {"train/permutation_recovery", "train/cycle_contrastive", "train/loss", "val/mAP", "val/feature_spread"}
    for measure in ("permutation_accuracy", "stripe_match", "stripe_return"):
        names |= {f"val/{measure}{modality}" for modality in ("", "_visible", "_infrared")}
    assert names <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again, images = load_method(tmp_path / "a.ckpt"), batch()
    assert type(again) is MMGL
    embedding = again.embed(images["image"], images["modality"])
    assert torch.equal(embedding, module.eval().embed(images["image"], images["modality"]))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
    assert embedding.dtype == torch.float32


@pytest.mark.slow
def test_training_without_labels_gives_the_same_weights(root, tmp_path):
    modules = []
    for dataset in (FakeDataset(root), Unlabelled(root)):
        seed_everything(3, verbose=False)
        modules.append(build())
        fit(modules[-1], datamodule(dataset), tmp_path, limit_val_batches=0)
    assert same_weights(*modules)
    assert not same_weights(modules[0], build())


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(root, tmp_path):
    whole, part, resumed = build(), build(), build(seed=5)
    fit(whole, datamodule(FakeDataset(root)), tmp_path, epochs=2, limit_val_batches=0)
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True, save_top_k=0)
    # Both runs know of two epochs, for the schedule's sake; the first is ended after one.
    stop = LambdaCallback(on_train_epoch_end=lambda trainer, _: setattr(trainer, "should_stop", True))
    fit(part, datamodule(FakeDataset(root)), tmp_path, epochs=2, limit_val_batches=0, callbacks=[keep, stop])
    assert not same_weights(whole, part)
    path = tmp_path / "kept" / "last.ckpt"
    torch.rand(7)
    fit(resumed, datamodule(FakeDataset(root)), tmp_path, epochs=2, limit_val_batches=0, ckpt_path=path)
    assert same_weights(whole, resumed)


@pytest.mark.parametrize(
    ("weights", "kept", "dropped"),
    [
        ({"permutation_weight": 0.0}, "cycle_contrastive", "permutation_recovery"),
        ({"cycle_weight": 0.0}, "permutation_recovery", "cycle_contrastive"),
    ],
)
def test_each_task_can_be_switched_off(weights, kept, dropped, root, tmp_path):
    module = build(**weights)
    trainer = fit(module, datamodule(FakeDataset(root)), tmp_path)
    assert f"train/{kept}" in trainer.callback_metrics
    assert f"train/{dropped}" not in trainer.callback_metrics
    heads = {name.split(".")[0] for name in module.state_dict()} - {"backbone"}
    assert heads == {"part_head" if kept == "cycle_contrastive" else "permutation_head"}
    measured = {"stripe_match"} if kept == "cycle_contrastive" else {"permutation_accuracy"}
    assert {f"val/{name}" for name in measured | {"feature_spread"}} <= set(trainer.callback_metrics)


def test_the_cycle_counts_from_its_epoch_on(root, tmp_path):
    """Before it, the part head has no gradient, though its loss is logged; afterwards it has."""
    moved = []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, module):
            self.before = {name: value.clone() for name, value in module.part_head.state_dict().items()}

        def on_train_epoch_end(self, trainer, module):
            assert "train/cycle_contrastive" in trainer.callback_metrics
            after = module.part_head.state_dict()
            moved.append(any(not torch.equal(value, after[name]) for name, value in self.before.items()))

    plain = Optimization(optimizer="sgd", lr=0.01, weight_decay=0.0)
    module = build(cycle_start=1, cycle_form="return", optimization=plain)
    fit(module, datamodule(FakeDataset(root)), tmp_path, epochs=2, callbacks=[Watch()], limit_val_batches=0)
    assert moved == [False, True]


def test_each_form_of_the_cycle_is_its_loss():
    seen = {}
    for form, loss in (("agreement", cycle_contrastive_loss), ("return", cycle_return_loss)):
        module, images = build(cycle_form=form).eval(), batch()
        torch.manual_seed(0)
        images["image"] = torch.randn(6, 3, *SIZE)
        seen[form] = module.losses(images)["cycle_contrastive"]
        order = draw_orders(6, 6, (0, *module.draw_key))
        parts = module.recover(images["image"], images["modality"], order)[1]
        torch.testing.assert_close(seen[form], loss(parts[:3].flatten(0, 1), parts[3:].flatten(0, 1)))
    assert seen["agreement"] != seen["return"]


@pytest.mark.parametrize(
    ("monitor", "weight"), [("val/permutation_accuracy", "permutation_weight"), ("val/stripe_match", "cycle_weight")]
)
def test_monitoring_what_is_switched_off_is_refused_before_training(monitor, weight, root, tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor=monitor)
    with pytest.raises(VIReIDError, match=f"not logged with {weight}: 0"):
        fit(build(**{weight: 0.0}), datamodule(FakeDataset(root)), tmp_path, callbacks=[keep])


def test_two_streams_by_default_and_one_as_an_option():
    assert any(".infrared." in name for name in build().state_dict())
    assert not any(".infrared." in name for name in build(two_stream_until=0).state_dict())


@pytest.mark.filterwarnings("ignore:.*self.log.*")
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "regnetx_002"])
def test_other_backbones(backbone):
    module = build(backbone=backbone)
    loss = module.training_step(batch(), 0)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_a_few_steps_lower_the_loss():
    module, images = build(cycle_weight=0.01, permutation_weight=36.0), batch(2, 2)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = module.training_step(images, 0)  # step 0 each time: the same orders
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_the_loss_does_not_depend_on_the_order_of_the_modalities(monkeypatch):
    module, images = build().eval(), batch()
    mixed = torch.tensor([3, 0, 4, 1, 5, 2])
    orders = torch.stack([torch.randperm(6) for _ in range(6)])
    monkeypatch.setattr("vireid_lightning.methods.mmgl.method.draw_orders", lambda *_: orders)
    loss = module.training_step(images, 0)
    monkeypatch.setattr("vireid_lightning.methods.mmgl.method.draw_orders", lambda *_: orders[mixed])
    shuffled = {name: values[mixed] for name, values in images.items()}
    # Sums in another order: float32 rounding.
    torch.testing.assert_close(module.training_step(shuffled, 0), loss, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_a_modality_that_a_batch_lacks_costs_no_part_retrieval():
    module = build(permutation_weight=0.0)
    assert module.training_step(batch(4, 0), 0).item() == 0


def test_orders_follow_from_seed_epoch_rank_and_step_in_training_and_from_the_image_in_validation(monkeypatch):
    drawn = []
    module, images = build(), batch()
    monkeypatch.setattr(module, "recover", lambda images, modality, order: drawn.append(order) or (None, None))
    monkeypatch.setattr(module, "combine", lambda *_: None)
    for step in (0, 0, 1):
        module.training_step(images, step)
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    module.training_step(images, 0)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    drawn.clear()
    module.eval()
    module.validation_step(images, 0)
    module.validation_step({name: values[[4, 1]] for name, values in images.items()}, 7)
    assert torch.equal(drawn[0][[4, 1]], drawn[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", [Baseline, AGW, DCLNet, MPANet])
def test_every_method_starts_from_a_checkpoint(method, checkpoint, root, tmp_path, capsys):
    torch.manual_seed(1)
    module = method(num_classes=6, backbone=BACKBONE, pretrained=False, init_from=str(checkpoint))
    data = datamodule(FakeDataset(root), identities_per_batch=2, images_per_modality=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*training identities are left out.*")
        trainer = fit(module, data, tmp_path, max_steps=0, limit_val_batches=0)
    account = capsys.readouterr().out
    assert "init_from" in account
    assert "not used:" in account
    assert "part_head" in account
    assert "permutation_head" in account
    assert ("the single stem from its visible one" in account) == (method is MPANet)
    source, target = read_checkpoint(checkpoint)["state_dict"], module.state_dict()
    matched = 0
    for name, value in target.items():
        if name.startswith("backbone.stages"):
            # A stage that the target keeps per modality starts from the shared one; MPANet's one stem from the visible.
            shared = name.replace(".visible.", ".").replace(".infrared.", ".")
            stem = name.replace("stages.0.", "stages.0.visible.")
            origin = next((n for n in (name, shared, stem) if n in source), None)
            if origin is not None:
                assert torch.equal(value, source[origin]), name
                matched += 1
    assert matched >= len([name for name in source if name.startswith("backbone.stages.") and ".infrared." not in name])
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    kept = read_checkpoint(tmp_path / "tuned.ckpt")["state_dict"]
    assert not any(name.startswith(MMGL.heads) for name in kept)


def test_init_from_where_nothing_matches(checkpoint, root, tmp_path):
    module = Baseline(num_classes=6, backbone="mobilenetv3_small_050", pretrained=False, init_from=str(checkpoint))
    with pytest.raises(VIReIDError, match=r"nothing of MMGL in .* matches the backbone"):
        fit(module, datamodule(FakeDataset(root)), tmp_path)


@pytest.mark.parametrize(
    ("height", "arguments", "words"),
    [
        (256, {}, "multiple of 96, such as 192 or 288"),
        (144, {}, "the 9 rows of its map of stride 16"),
        (256, {"cycle_weight": 0.0}, "multiple of 6, such as 252 or 258"),
    ],
)
def test_a_height_that_the_stripes_do_not_divide_is_refused_before_training(height, arguments, words, root, tmp_path):
    with pytest.raises(VIReIDError, match=words):
        fit(build(**arguments), datamodule(FakeDataset(root), image_size=(height, 32)), tmp_path)
    with pytest.raises(VIReIDError, match=words):
        build(**arguments).recover(torch.zeros(2, 3, height, 32), torch.tensor([0, 1]), torch.arange(6).expand(2, 6))


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_height_that_the_stripes_do_not_divide_is_refused_before_anything_is_scored(stage, root, tmp_path):
    scores = RetrievalMetrics()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[scores])
    with pytest.raises(VIReIDError, match="multiple of 96, such as 192 or 288"):
        getattr(trainer, stage)(build(), datamodule(FakeDataset(root), image_size=(256, 32)), verbose=False)
    assert scores.table is None


def test_a_dataset_with_one_modality_is_refused(root, tmp_path):
    with pytest.raises(VIReIDError, match="no infrared image"):
        fit(build(), datamodule(OneModality(root)), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stripes": 1}, "stripes is 1"),
        ({"permutation_weight": 0, "cycle_weight": 0}, "one above 0"),
        ({"cycle_weight": -1.0}, "cycle_weight is -1.0"),
        ({"cycle_form": "round"}, "cycle_form is 'round'"),
        ({"cycle_start": -1}, "cycle_start"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(VIReIDError, match=words):
        build(**arguments)


def test_the_summary_names_no_identities_of_a_batch(root, tmp_path):
    console = Console(record=True, width=200, file=io.StringIO())
    fit(build(), datamodule(FakeDataset(root)), tmp_path, callbacks=[RunSummary(console)], limit_val_batches=0)
    assert "4 visible + 4 infrared of any identity = 8 images" in console.export_text()
