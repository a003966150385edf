"""CMAM: the losses of both stages, who receives gradient, one resumable run, and labels that nobody reads."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import warnings

import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint
from references import cmam as slow
from references.fake_dataset import TRAIN, FakeDataset, write_fake_dataset

from vireid_lightning.data import CrossModalityDataModule, Source
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import CMAM, Baseline, Optimization, SourceStage, TargetStage, load_method
from vireid_lightning.modules import Encoding

SIZE = (64, 32)
SOURCE = SourceStage(steps=4, warmup_steps=1, constant_steps=2, clustering="kmeans", clusters=4)
TARGET = TargetStage(dbscan_steps=0, kmeans_steps=4, warmup_steps=1, clusters=4)


class Unlabelled(FakeDataset):
    """The same images, none of which says whom it shows."""

    labelled = False

    def identities(self, split):
        return [] if split == "train" else super().identities(split)

    def samples(self, split):
        samples = super().samples(split)
        return [dataclasses.replace(s, identity=-1) for s in samples] if split == "train" else samples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_fake_dataset(tmp_path_factory.mktemp("cmam") / "fake", SIZE)


def build(**arguments):
    torch.manual_seed(0)
    return CMAM(**{"source": SOURCE, "target": TARGET, "backbone": "test_resnet", "pretrained": False, **arguments})


def datamodule(dataset, *, source=True, labels=False, **arguments):
    options = {"identities_per_batch": 2, "images_per_modality": 2, "steps_per_epoch": 2, "num_workers": 0, **arguments}
    visible = Source(dataset, identities_per_batch=2, images_per_identity=3, labels=labels) if source else None
    return CrossModalityDataModule(dataset, image_size=SIZE, source=visible, **options)


def make_trainer(epochs, **arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    return Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **{**quiet, **arguments})


def fit(module, data, epochs=6, checkpoint=None, **arguments):
    trainer = make_trainer(epochs, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return trainer


@pytest.fixture(scope="module")
def trained(dataset):
    """A run through both stages: module and trainer."""
    module = build()
    return module, fit(module, datamodule(dataset))


class Counter(Callback):
    """Counts the steps of a run."""

    steps = 0

    def on_train_batch_start(self, *_):
        self.steps += 1


def same_weights(first, second):
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.mark.slow
def test_one_run_goes_through_both_stages_and_logs_terms_and_clusters(trained):
    logged = trained[1].callback_metrics
    stage_1 = {"train/identity", "train/triplet", "train/mutual_kl", "train/mutual_similarity", "source/clusters"}
    stage_2 = {"train/contrast_rgb", "train/contrast_gray", "train/agreement_kl", "train/agreement_distance"}
    quality = {"target/v_measure", "target/ari", "target/right_pairs", "target/outliers_infrared", "source/ari_visible"}
    assert stage_1 | stage_2 | quality | {"target/clusters_visible"} <= set(logged)
    assert logged["target/clusters"] == 4


@pytest.mark.slow
def test_its_checkpoint_rebuilds_it(trained, tmp_path):
    module, trainer = trained
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = load_method(tmp_path / "a.ckpt")
    assert (again.source, again.target) == (SOURCE, TARGET)
    images, modality = torch.randn(4, 3, *SIZE), torch.tensor([0, 0, 1, 1])
    module.eval()
    assert torch.equal(again.embed(images, modality), module.embed(images, modality))


@pytest.mark.slow
def test_a_checkpoint_with_arguments_of_an_older_version_is_loaded(trained, tmp_path):
    module, trainer = trained
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["source_labels"] = True
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert same_weights(load_method(tmp_path / "old.ckpt"), module)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [1, 2, 4, 5])
def test_a_run_stopped_at_the_end_of_any_epoch_goes_on_as_if_it_had_not_been(trained, dataset, tmp_path, stopped_after):
    fit(build(), datamodule(dataset), epochs=stopped_after).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = build()
    fit(resumed, datamodule(dataset), checkpoint=tmp_path / "stopped.ckpt")
    assert same_weights(resumed, trained[0])


@pytest.mark.slow
def test_a_run_stopped_within_any_epoch_goes_on_as_if_it_had_not_been(trained, dataset, tmp_path):
    def save(trainer, module, outputs, batch, index):
        if index == 0:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    fit(build(), datamodule(dataset), callbacks=[LambdaCallback(on_train_batch_end=save)])
    for step in (1, 5, 9, 11):  # both passes of stage 1, both epochs of stage 2
        resumed, note = build(), Counter()
        fit(resumed, datamodule(dataset), checkpoint=tmp_path / f"{step}.ckpt", callbacks=[note])
        assert note.steps == 12 - step
        assert same_weights(resumed, trained[0])


@pytest.mark.slow
def test_going_on_within_an_epoch_needs_its_clusters_and_its_phase(dataset, tmp_path):
    def save(trainer, module, outputs, batch, index):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        trainer.should_stop = True

    fit(build(), datamodule(dataset), callbacks=[LambdaCallback(on_train_batch_end=save)])
    identities = build(source=dataclasses.replace(SOURCE, clustering="dbscan"))
    with pytest.raises(VIReIDError, match=r"saved within an epoch on the source with kmeans, .* set the stages back"):
        fit(identities, datamodule(dataset), checkpoint=tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del checkpoint["pseudo_label_epoch"]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(VIReIDError, match="does not hold that epoch's clusters; go on from a checkpoint of the end"):
        fit(build(), datamodule(dataset), checkpoint=tmp_path / "a.ckpt")


@pytest.mark.slow
def test_the_checkpoint_that_follows_a_validation_can_be_resumed(trained, dataset, tmp_path):
    saving = ModelCheckpoint(tmp_path, save_last=True)
    validating = {"limit_val_batches": 1.0, "enable_checkpointing": True}
    fit(build(), datamodule(dataset), epochs=3, callbacks=[saving], **validating)
    resumed = build()
    fit(resumed, datamodule(dataset), checkpoint=saving.last_model_path)
    assert same_weights(resumed, trained[0])


@pytest.mark.slow
def test_dbscan_then_kmeans_with_outliers_and_unequal_counts_in_one_run_that_can_be_stopped(dataset, tmp_path):
    settings = {"eps": 0.5, "k1": 3, "k2": 2, "min_samples": 2}
    target = dataclasses.replace(TARGET, dbscan_steps=4, kmeans_steps=2, **settings)
    seen, found = [], []

    def note(trainer, module, batch, index):
        labels = module.training_data.self_training.labels
        assert (batch["identity"].numpy() == labels[batch["index"]]).all()
        seen.append((module.phase.clusterer, int((labels < 0).sum()), int(batch["identity"].min())))

    def count(trainer, module):
        found.append([int(trainer.callback_metrics[f"target/clusters_{name}"]) for name in ("visible", "infrared")])

    def run(module, **arguments):
        return fit(module, datamodule(dataset, source=False), **{"epochs": 3, **arguments})

    whole = build(source=None, target=target)
    run(whole, callbacks=[LambdaCallback(on_train_batch_start=note, on_train_epoch_end=count)])
    assert [clusterer for clusterer, *_ in seen] == ["dbscan"] * 4 + ["kmeans"] * 2
    assert seen[0][1] > 0 == seen[-1][1]  # outliers
    assert all(lowest >= 0 for _, _, lowest in seen)  # of which none is drawn
    assert found[0][0] != found[0][1]
    for epochs in (1, 2):
        run(build(source=None, target=target), epochs=epochs).save_checkpoint(tmp_path / "stopped.ckpt")
        resumed = build(source=None, target=target)
        run(resumed, checkpoint=tmp_path / "stopped.ckpt")
        assert same_weights(resumed, whole)


@pytest.mark.slow
def test_no_identity_is_read_in_training(trained, dataset):
    blind = build()
    trainer = fit(blind, datamodule(Unlabelled(dataset.root)))
    assert same_weights(blind, trained[0])
    assert not any(part in name for name in trainer.callback_metrics for part in ("v_measure", "/ari", "right"))
    assert "target/clusters" in trainer.callback_metrics


@pytest.mark.slow
def test_the_identities_of_the_source_are_an_option(dataset):
    module = build(target=None)
    logged = fit(module, datamodule(dataset, labels=True), epochs=4).callback_metrics
    assert logged["source/clusters"] == sum(visible > 0 for visible, _ in TRAIN.values())
    assert logged["source/ari"] == 1
    with pytest.raises(VIReIDError, match="source with at least 2 identities"):
        fit(build(), datamodule(Unlabelled(dataset.root), labels=True))


@pytest.mark.slow
def test_either_stage_runs_alone_and_the_second_starts_from_the_first(dataset, tmp_path):
    first = build(target=None)
    fit(first, datamodule(dataset), epochs=4).save_checkpoint(tmp_path / "first.ckpt")
    second = build(source=None, init_from=str(tmp_path / "first.ckpt"))
    untouched = {name: value.clone() for name, value in first.state_dict().items()}

    def compare(trainer, module):
        assert all(torch.equal(value, untouched[name]) for name, value in module.state_dict().items())

    fit(second, datamodule(dataset, source=False), epochs=2, callbacks=[LambdaCallback(on_fit_start=compare)])
    assert not same_weights(second, first)


@pytest.mark.slow
def test_both_models_start_from_another_methods_backbone(dataset, tmp_path):
    other = Baseline(num_classes=5, backbone="test_resnet", pretrained=False)
    trainer = make_trainer(1)
    trainer.strategy.connect(other)
    trainer.save_checkpoint(tmp_path / "baseline.ckpt")
    module = build(init_from=str(tmp_path / "baseline.ckpt"))
    wanted = other.backbone.stages[3].state_dict()

    def compare(trainer, module):
        for network in (module, module.gray):
            assert all(torch.equal(v, wanted[n]) for n, v in network.backbone.stages[3].state_dict().items())

    fit(module, datamodule(dataset), epochs=1, callbacks=[LambdaCallback(on_fit_start=compare)])


def step_terms(module, batch):
    """The weighted sum of a batch's terms, the terms, and their weights."""
    terms = module.losses(batch)
    return sum(module.loss_weights.get(name, 1.0) * term for name, term in terms.items()), terms, module.loss_weights


class Stub(torch.nn.Module):
    """A network whose z is a table of rows, one table for each time it is asked."""

    def __init__(self, *tables):
        super().__init__()
        self.tables, self.calls = list(tables), 0

    def forward(self, images, modality):
        self.calls += 1
        z = self.tables[self.calls - 1]
        return Encoding([], z, z)


def stubbed(trained, epoch, tables, gray, clusters=3):
    """A module without a Trainer whose networks answer with given z, in a given epoch, and six labelled images."""
    module = build()
    module.enter(trained[0].timeline.phase(epoch))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    rows = torch.randn(2, clusters, tables[0].shape[1], dtype=torch.float64)
    module._classifiers = [torch.nn.Parameter(each) for each in rows]
    module._prototypes = [F.normalize(each, dim=1) for each in rows]
    module.encode = Stub(*tables).forward
    module.gray = Stub(gray)
    images = torch.randn(6, 3, 8, 4)
    batch = {"image": images, "modality": torch.zeros(6).long(), "index": torch.arange(6), "identity": labels}
    return module, batch


def tables(count):
    return [torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(count)]


@pytest.mark.parametrize(("epoch", "kl_weight"), [(0, 0.0), (2, 0.1)])
def test_the_first_stage_equals_the_slow_reference_with_gradients(trained, epoch, kl_weight):
    colour, gray, extractor = tables(3)
    module, batch = stubbed(trained, epoch, [colour, gray], extractor)
    total, _, _ = step_terms(module, batch)
    labels, (own, other) = batch["identity"], module._classifiers
    logits = [slow.circle_logits(z, w, labels, 64, 0.35) for z, w in ((colour, own), (gray, own), (extractor, other))]
    expected = sum(slow.smoothed_cross_entropy(each, labels, 0.1) for each in logits)
    expected = expected + sum(slow.soft_margin_triplet(z, labels) for z in (colour, gray, extractor))
    expected = expected + 0.5 * (
        slow.similarity_difference(extractor, colour.detach()) + slow.similarity_difference(gray, extractor.detach())
    )
    if kl_weight:
        mutual = slow.symmetric_kl(logits[2], logits[0].detach()) + slow.symmetric_kl(logits[1], logits[2].detach())
        expected = expected + kl_weight * mutual
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)
    inputs = (colour, gray, extractor, own, other)
    for found, wanted in zip(*(torch.autograd.grad(value, inputs) for value in (total, expected))):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_the_mutual_terms_never_reach_the_colour_stream(trained):
    colour, gray, extractor = tables(3)
    module, batch = stubbed(trained, 2, [colour, gray], extractor)
    _, terms, weights = step_terms(module, batch)
    assert weights == {"mutual_kl": 0.1, "mutual_similarity": 0.5}
    (terms["mutual_kl"] + terms["mutual_similarity"]).backward()
    assert colour.grad is None
    assert gray.grad.abs().max() > 0
    assert extractor.grad.abs().max() > 0


def test_the_second_stage_equals_the_slow_reference_with_gradients(trained):
    rgb, gray = tables(2)
    module, batch = stubbed(trained, 4, [rgb], gray)
    total, _, _ = step_terms(module, batch)
    labels, prototypes = batch["identity"], module._prototypes
    expected = sum(slow.cluster_contrast(z, p, labels, 0.05) for z, p in zip((rgb, gray), prototypes))
    logits = [F.normalize(z, dim=1) @ p.T / 0.05 for z, p in zip((rgb, gray), prototypes)]
    p1, p2 = (each.softmax(dim=1) for each in logits)
    expected = expected + 0.01 * (slow.kl(p2, p1) + slow.kl(p1, p2)) + 0.05 * slow.distance_difference(rgb, gray)
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)
    for found, wanted in zip(*(torch.autograd.grad(value, (rgb, gray)) for value in (total, expected))):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_prototypes_move_after_the_step_sample_by_sample(trained, monkeypatch):
    rgb, gray = tables(2)
    module, batch = stubbed(trained, 4, [rgb, rgb], gray)
    module.gray.tables = [gray, gray]
    before = [each.clone() for each in module._prototypes]
    module.losses(batch)  # on their own, the losses leave nothing for the memory
    assert not module.kept
    monkeypatch.setattr(module, "combine", lambda *_: None)
    module.training_step(batch, 1)
    assert all(torch.equal(a, b) for a, b in zip(module._prototypes, before))
    module.trainer = trained[1]  # gathers what its processes kept
    module.on_train_batch_end(None, batch, 1)
    for moved, prototypes, z in zip(module._prototypes, before, (rgb, gray)):
        for row, label in zip(z.detach(), batch["identity"]):
            prototypes[label] = F.normalize(0.2 * prototypes[label] + 0.8 * F.normalize(row, dim=0), dim=0)
        torch.testing.assert_close(moved, prototypes, rtol=0, atol=1e-14)


def test_the_embedding_is_the_normalised_mean_over_the_mirror_image():
    images, modality = torch.randn(3, 3, *SIZE), torch.tensor([0, 1, 0])
    single, both = build().eval(), build(embedding="both").eval()
    embedding = single.embed(images, modality)
    rgb = (single.rgb(images, modality) + single.rgb(images.flip(3), modality)) / 2
    torch.testing.assert_close(embedding, F.normalize(rgb, dim=1))
    torch.testing.assert_close(single.embed(images.flip(3), modality), embedding, rtol=0, atol=1e-5)
    assert both.embed(images, modality).shape == (3, 2 * embedding.shape[1])
    torch.testing.assert_close(F.normalize(both.embed(images, modality)[:, : embedding.shape[1]], dim=1), embedding)


@pytest.mark.parametrize(
    ("arguments", "options", "epochs", "message"),
    [
        ({}, {"source": False}, 6, r"data\.source\.dataset"),
        ({}, {}, 7, "max_epochs is 7, but the stages take 6 epochs"),
        ({"target": dataclasses.replace(TARGET, clusters=21)}, {}, 6, r"target\.clusters is 21.*only 20"),
        ({"source": dataclasses.replace(SOURCE, steps=3)}, {}, 6, "3 steps, which is no whole number of epochs"),
        ({"source": None, "target": dataclasses.replace(TARGET, kmeans_steps=0)}, {}, 1, "no steps to train"),
        (
            {"source": dataclasses.replace(SOURCE, clustering="dbscan", k1=1)},
            {},
            6,
            "dbscan put 0 of the 21 visible images into 0 clusters.*; raise eps",
        ),
        (
            {"source": dataclasses.replace(SOURCE, clustering="dbscan", eps=0.99)},
            {},
            6,
            "dbscan put 21 of the 21 visible images into 1 cluster,.*; lower eps",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(dataset, arguments, options, epochs, message):
    with pytest.raises(VIReIDError, match=message):
        fit(build(**arguments), datamodule(dataset, **options), epochs=epochs)


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [
        (SourceStage, "eps", 1.0),
        (SourceStage, "min_samples", 0),
        (SourceStage, "clusters", 1),
        (SourceStage, "scale", 0.0),
        (TargetStage, "k1", 0),
        (TargetStage, "momentum", 2.0),
        (TargetStage, "temperature", 0.0),
    ],
)
def test_a_stages_settings_are_checked_when_they_are_given(stage, name, value):
    with pytest.raises(VIReIDError, match=rf"{stage.__name__}\.{name} is {value}; it must be "):
        stage(**{name: value})


@pytest.mark.parametrize("arguments", [{"accumulate_grad_batches": 2}, {"limit_train_batches": 1}])
def test_what_would_shift_the_schedule_is_refused(dataset, arguments):
    with pytest.raises(VIReIDError, match="stages count optimisation steps"):
        fit(build(), datamodule(dataset), **arguments)


def test_batches_and_images_are_checked_before_training(dataset):
    with pytest.raises(VIReIDError, match="at least 2 pseudo identities"):
        fit(build(source=None), datamodule(dataset, source=False, identities_per_batch=1), epochs=2)
    with pytest.raises(VIReIDError, match="on_bad_image: skip cannot be used"):
        fit(build(), datamodule(dataset, on_bad_image="skip"))


def test_a_schedule_of_epochs_is_refused():
    with pytest.raises(VIReIDError, match=r"leave optimization\.schedule constant"):
        build(optimization=Optimization(schedule="cosine"))


def test_it_needs_a_datamodule_that_draws_by_its_labels(trained):
    with pytest.raises(VIReIDError, match="CrossModalityDataModule"):
        make_trainer(1).fit(build(), torch.utils.data.DataLoader([0]))


def test_fake_infrared_copies_reach_the_gray_view(dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copies")
    data = datamodule(dataset)
    data.source = dataclasses.replace(data.source, fake_infrared=str(tmp_path / "copies"))
    module, seen = build(target=None), []
    view = module.gray_view.forward

    def forward(images, *arguments, **options):
        seen.append(options.get("fake_infrared") is not None)
        return view(images, *arguments, **options)

    module.gray_view.forward = forward
    fit(module, data, epochs=1)
    assert seen.count(True) == 2  # one for each step, none in the extraction of features


@pytest.mark.slow
def test_the_learning_rate_of_every_step_is_the_schedules(dataset):
    module, seen = build(), []

    def note(trainer, module, batch, index):
        seen.append({group["lr"] for group in trainer.optimizers[0].param_groups})

    fit(module, datamodule(dataset), callbacks=[LambdaCallback(on_train_batch_start=note)])
    assert all(len(rates) == 1 for rates in seen)
    expected = [module.timeline.rate(step) for step in range(12)]
    assert [rates.pop() for rates in seen] == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_rank(rank, port, root, queue):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    module = build()
    fit(module, datamodule(FakeDataset(root)), devices=2, strategy="ddp")
    weights = {name: value.numpy() for name, value in module.state_dict().items() if name.endswith("neck.weight")}
    classifiers = [each.detach().numpy() for each in module._classifiers]
    labels = module.training_data.self_training.labels
    queue.put((rank, labels.tolist(), [each.numpy() for each in module._prototypes], weights, classifiers))


@pytest.mark.slow
def test_two_processes_have_one_set_of_labels_prototypes_and_weights(dataset, unused_port):
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=run_rank, args=(rank, unused_port, dataset.root, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    first, second = sorted((queue.get(timeout=200) for _ in processes), key=lambda result: result[0])
    for process in processes:
        process.join()
    assert first[1] == second[1]
    assert len(first[1]) == len(dataset.samples("train"))
    assert all((a == b).all() for a, b in zip(first[2], second[2]))
    assert all((first[3][name] == second[3][name]).all() for name in first[3])
    # Those of the last epoch of stage 1, whose gradients DDP does not know of.
    assert all((a == b).all() for a, b in zip(first[4], second[4]))
