"""The images of a source, with and without fake-infrared copies, and the batches of both domains from one loader."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from references.fake_dataset import TRAIN, FakeDataset, write_fake_dataset

from vireid_lightning.data import CrossModalityDataModule, Source
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.data.images.intensity import IntensityRange
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.data.self_training import open_source, true_identities
from vireid_lightning.errors import VIReIDError

SIZE = (24, 12)
VISIBLE = sum(visible for visible, _ in TRAIN.values())
PLAIN = Augmentation(flip=0.5, pad=2, erasing=0.5)


@pytest.fixture
def dataset(tmp_path):
    return write_fake_dataset(tmp_path / "fake", SIZE)


def opened(source):
    return open_source(source, image_size=SIZE, interpolation="bilinear", cache_dir=None)


def datamodule(dataset, **options):
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=2,
        images_per_modality=3,
        image_size=SIZE,
        steps_per_epoch=4,
        num_workers=0,
        **options,
    )
    method = SimpleNamespace(batches="pseudo_label")
    data.trainer = SimpleNamespace(lightning_module=method, world_size=1, global_rank=0, overfit_batches=0)
    return data


def test_a_source_is_its_visible_training_images_without_identities(dataset):
    domain = opened(Source(dataset))
    assert len(domain.samples) == VISIBLE
    assert {(sample.modality, sample.identity) for sample in domain.samples} == {(0, -1)}
    named = {sample.path: sample.identity for sample in dataset.samples("train")}
    kept = opened(Source(dataset, labels=True)).samples
    assert [sample.identity for sample in kept] == [named[sample.path] for sample in domain.samples]


def test_deep_images_of_a_source_need_its_own_range(dataset):
    path = next(sample.path for sample in dataset.samples("train") if sample.modality == 0)
    counts = np.linspace(7300, 8240, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16)
    (dataset.root / path).write_bytes(cv2.imencode(".png", counts)[1].tobytes())
    with pytest.raises(VIReIDError, match=r"has 16 bits.*set --data\.source\.intensity_range\.visible "):
        opened(Source(dataset))
    images = opened(Source(dataset, intensity_range=IntensityRange(visible=(7300, 8240)))).evaluation.images
    assert (images[images.paths.index(path)][:, :, 0] == np.rint((counts - 7300.0) / 940 * 255)).all()
    measured = Source(dataset, intensity_range=IntensityRange(visible_percentiles=(0, 100)))
    assert opened(measured).evaluation.images.limits == ((7300, 8240), None)


def test_fake_infrared_copies_go_through_the_augmentation_of_their_image(dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copies")
    domain = opened(Source(dataset, transforms=PLAIN, fake_infrared=str(tmp_path / "copies")))
    for seed in range(5):
        item = domain.training[Draw(3, seed)]
        assert torch.equal(item["fake_infrared"], item["image"])  # the copies are the images themselves


def test_a_missing_copy_is_named(dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copies")
    path = dataset.samples("train")[0].path
    (tmp_path / "copies" / path).unlink()
    with pytest.raises(VIReIDError, match=r"02_v0.png.*fake_infrared needs a copy of every"):
        opened(Source(dataset, fake_infrared=str(tmp_path / "copies")))


def test_a_source_without_visible_images_is_refused(dataset):
    class Infrared(FakeDataset):
        def samples(self, split):
            return [sample for sample in super().samples(split) if sample.modality == 1]

    with pytest.raises(VIReIDError, match="no visible training image"):
        opened(Source(Infrared(dataset.root)))


def test_one_loader_draws_from_either_domain_by_the_labels_assigned_last(dataset):
    data = datamodule(dataset, source=Source(dataset, identities_per_batch=2, images_per_identity=4))
    data.setup("fit")
    loader = data.train_dataloader()
    rounds = data.self_training
    rounds.assign("source", np.arange(VISIBLE) % 3)
    batches = list(loader)
    assert len(batches) == 4
    assert batches[0]["image"].shape == (8, 3, *SIZE)
    assert {int(m) for batch in batches for m in batch["modality"]} == {0}
    for batch in batches:
        assert len(set((batch["index"] % 3).tolist())) == 2
        assert batch["identity"].tolist() == (batch["index"] % 3).tolist()
    modality = rounds.domains["target"].modality
    rounds.assign("target", np.arange(len(modality)) % 2)
    batch = next(iter(loader))
    assert batch["image"].shape == (12, 3, *SIZE)
    assert batch["modality"].tolist() == [0] * 6 + [1] * 6
    assert modality[batch["index"]].tolist() == [0] * 6 + [1] * 6
    # The identity of a batch is the label that it was drawn by; the dataset's own identities are removed.
    assert batch["identity"].tolist() == (batch["index"] % 2).tolist()
    assert {sample.identity for sample in rounds.drawn.samples} == {-1}
    assert len(data.train_dataloader()) == 4


def test_both_images_are_normalised_on_the_device(dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "copies")
    source = Source(dataset, transforms=PLAIN, fake_infrared=str(tmp_path / "copies"))
    data = datamodule(dataset, source=source)
    data.setup("fit")
    data.self_training.assign("source", np.arange(VISIBLE) % 4)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert torch.equal(batch["image"], batch["fake_infrared"])
    assert batch["image"].dtype == torch.float32


def test_the_extraction_loader_shows_every_image_once_in_order(dataset):
    data = datamodule(dataset)
    data.setup("fit")
    index = torch.cat([batch["index"] for batch in data.self_training.extraction_loader("target")])
    assert index.tolist() == list(range(len(data.train_samples)))


def test_true_identities_are_those_of_the_files_or_none(dataset):
    data = datamodule(dataset)
    assert true_identities(dataset, data.train_samples).tolist() == [s.identity for s in dataset.samples("train")]
    data.setup("fit")
    assert data.self_training.domains["target"].true_identities().tolist() == [
        s.identity for s in dataset.samples("train")
    ]

    class Unlabelled(FakeDataset):
        labelled = False

    assert true_identities(Unlabelled(dataset.root), data.train_samples) is None


def test_steps_between_clusterings_must_be_given(dataset):
    data = datamodule(dataset)
    data.steps_per_epoch = None
    with pytest.raises(VIReIDError, match="steps between two clusterings"):
        data.setup("fit")


def test_a_source_is_refused_by_a_method_that_has_no_use_for_it(dataset):
    data = CrossModalityDataModule(
        dataset, identities_per_batch=2, images_per_modality=2, image_size=SIZE, num_workers=0, source=Source(dataset)
    )
    with pytest.warns(UserWarning, match="left out"), pytest.raises(VIReIDError, match=r"leave data\.source out"):
        data.setup("fit")
