from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from references.fake_dataset import TRAIN, FakeDataset, write_fake_dataset

from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.data.images.augmentation import Augmentation
from vireid_lightning.data.images.reading import BadImageError
from vireid_lightning.data.images.torch_datasets import TrainingImages
from vireid_lightning.data.samplers.planned import Draw
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample

pytestmark = pytest.mark.filterwarnings("ignore:.*training identities are left out")
SIZE = (16, 8)
P, K = 2, 3


@pytest.fixture
def dataset(tmp_path):
    return write_fake_dataset(tmp_path / "root")


def make(dataset, **options):
    defaults = {
        "identities_per_batch": P,
        "images_per_modality": K,
        "image_size": SIZE,
        "steps_per_epoch": 4,
        "num_workers": 0,
        "eval_batch_size": 4,
    }
    return CrossModalityDataModule(dataset, **{**defaults, **options})


def train_batches(dataset, epoch=0, **options):
    data = make(dataset, **options)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first, second):
    return len(first) == len(second) and all(
        one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(first, second)
    )


class Recorder(LightningModule):
    """Keeps what a step received; its one weight follows from the images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch["index"].tolist(), float(batch["image"].double().sum())))
        return (self.weight - batch["image"].mean()) ** 2

    def validation_step(self, batch, batch_idx):
        self.seen.append(("validate", batch["index"].tolist()))

    def predict_step(self, batch, batch_idx):
        return batch["index"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder, **options):
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
        "enable_checkpointing": False,
    }
    return Trainer(**{**defaults, **options})


def test_training_batch(dataset):
    for batch in train_batches(dataset):
        assert {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()} == {
            "image": (torch.uint8, (12, 3, *SIZE)),
            "identity": (torch.int64, (12,)),
            "modality": (torch.int64, (12,)),
            "camera": (torch.int64, (12,)),
            "index": (torch.int64, (12,)),
            "erased": (torch.bool, (12, *SIZE)),
        }
        assert batch["modality"].tolist() == [0] * 6 + [1] * 6
        assert batch["identity"][:6].tolist() == batch["identity"][6:].tolist()
        samples = [dataset.samples("train")[index] for index in batch["index"]]
        # Classes are positions in the sorted identities, those without a modality included.
        assert [sorted(TRAIN)[identity] for identity in batch["identity"]] == [sample.identity for sample in samples]
        assert batch["camera"].tolist() == [sample.camera for sample in samples]


def test_num_identities_reads_no_sample(dataset, monkeypatch):
    monkeypatch.setattr(FakeDataset, "samples", None)
    data = make(dataset)
    assert data.num_identities == 6
    assert data.identities == sorted(TRAIN)


@pytest.mark.slow
def test_draws_do_not_depend_on_workers_start_method_or_cache(dataset, tmp_path):
    options = {"visible_transforms": "caj", "infrared_transforms": Augmentation(jitter=0.5)}
    expected = train_batches(dataset, **options)
    assert same(expected, train_batches(dataset, num_workers=2, **options))
    cached = {"cache_dir": str(tmp_path / "cache"), **options}
    assert same(expected, train_batches(dataset, **cached))
    assert same(expected, train_batches(dataset, num_workers=1, multiprocessing_context="spawn", **cached))
    assert len(list((tmp_path / "cache").glob("*.images"))) == 2


def test_epochs_and_seeds_change_the_draws(dataset):
    first = train_batches(dataset, seed=3)
    assert same(first, train_batches(dataset, seed=3))
    assert not same(first, train_batches(dataset, seed=4))
    assert not same(first, train_batches(dataset, epoch=1, seed=3))


def test_seed_defaults_to_the_global_one(dataset, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert same(train_batches(dataset), train_batches(dataset, seed=0))
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    assert same(train_batches(dataset), train_batches(dataset, seed=9))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("after_validation", [True, False])
def test_resumed_run_draws_what_an_uninterrupted_one_draws(dataset, tmp_path, num_workers, after_validation):
    def fit(max_epochs, **options):
        model = Recorder()
        callbacks = []
        if max_epochs == 2:
            # Saved after the epoch's validation, or after the whole epoch: Lightning counts the two differently.
            after_epoch = not after_validation
            callbacks = [ModelCheckpoint(tmp_path / "saved", "{epoch}", save_on_train_epoch_end=after_epoch)]
        trainer = make_trainer(
            tmp_path,
            max_epochs=max_epochs,
            limit_val_batches=1,
            callbacks=callbacks,
            enable_checkpointing=bool(callbacks),
        )
        trainer.fit(model, make(dataset, num_workers=num_workers), **options)
        return model

    whole, first = fit(4), fit(2)
    assert {seen[0] for seen in whole.seen} == {0, 1, 2, 3, "validate"}
    assert len({tuple(seen[1]) for seen in whole.seen}) > 5
    resumed = fit(4, ckpt_path=tmp_path / "saved" / "epoch=1.ckpt")
    assert first.seen + resumed.seen == whole.seen
    assert resumed.weight.item() == whole.weight.item()


def test_images_are_normalised_and_erased_pixels_are_exactly_zero(dataset):
    data = make(dataset, visible_transforms=Augmentation(erasing=1), infrared_transforms="none")
    raw = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(dict(raw), 0)
    assert batch["image"].dtype == torch.float32
    erased = raw["erased"].unsqueeze(1).expand_as(batch["image"])
    assert erased[:6].any()
    assert not erased[6:].any()
    assert (batch["image"][erased] == 0).all()
    mean, std = (np.array(data.preprocessing[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    expected = torch.from_numpy((raw["image"].numpy() / 255 - mean) / std)
    # Three float32 roundings of values up to 2.7.
    assert (batch["image"] - expected)[~erased].abs().max() < 4 * 2.7 * 2**-24 * 3


def test_evaluation_batches(dataset):
    data = make(dataset)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    samples = data.eval_samples("test")
    assert samples == dataset.samples("test")
    assert torch.cat([batch["identity"] for batch in batches]).tolist() == [sample.identity for sample in samples]
    assert "erased" not in batches[0]
    assert [protocol.name for protocol in data.protocols("test")] == ["infrared-to-visible", "visible-to-infrared"]


def test_validation_extracts_what_its_protocol_needs(dataset):
    data = make(dataset)
    every = dataset.samples("val")
    (protocol,) = data.protocols("validate")
    (original, _) = dataset.protocols(every, "val")
    samples = data.eval_samples("validate")
    assert len(samples) == len(every) - 1
    assert len(protocol.trials) == 2
    for moved, trial in zip(protocol.trials, original.trials):
        assert [samples[i] for i in moved.query] == [every[i] for i in trial.query]
        assert [samples[i] for i in moved.gallery] == [every[i] for i in trial.gallery]
    assert sum(len(batch["index"]) for batch in data.val_dataloader()) == len(samples)


def test_validation_protocol_is_chosen_by_name(dataset):
    data = make(dataset, validation_protocol="visible-to-infrared")
    assert data.protocols("validate")[0].name == "visible-to-infrared"
    with pytest.raises(VIReIDError, match="Did you mean 'visible-to-infrared'"):
        make(dataset, validation_protocol="visible-to-infrard").setup("fit")


def test_under_a_trainer(dataset, tmp_path):
    model, data = Recorder(), make(dataset)
    trainer = make_trainer(tmp_path, max_epochs=1, limit_val_batches=1.0)
    trainer.fit(model, data)
    assert [index for stage, index, *_ in model.seen if stage == "validate"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert torch.cat(trainer.predict(model, data)).tolist() == list(range(12))
    with pytest.raises(VIReIDError, match="limit_train_batches"):
        make_trainer(tmp_path, max_epochs=1, overfit_batches=1).fit(model, data)


def run_rank(rank, port, root, queue):
    warnings.simplefilter("ignore")
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    model = Recorder()
    trainer = make_trainer(root, devices=2, strategy="ddp", max_epochs=2, limit_val_batches=1.0)
    trainer.fit(model, make(FakeDataset(root)))
    queue.put((rank, [(stage, index) for stage, index, *_ in model.seen], make_sampler_type(trainer)))


def make_sampler_type(trainer):
    return type(trainer.train_dataloader.sampler).__name__


@pytest.mark.slow
def test_two_processes_share_the_batches_of_one(dataset, tmp_path, unused_port):
    single = Recorder()
    make_trainer(tmp_path, max_epochs=2, limit_val_batches=1.0).fit(single, make(dataset))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=run_rank, args=(rank, unused_port, dataset.root, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=200) for _ in processes)
    for process in processes:
        process.join()
    assert [sampler for *_, sampler in results] == ["IdentitySampler"] * 2
    steps = [[seen for seen in result[1] if seen[0] != "validate"] for result in results]
    expected = [(epoch, index) for epoch, index, *_ in single.seen if epoch != "validate"]
    identity = [sample.identity for sample in dataset.samples("train")]
    assert len(steps[0]) == len(steps[1]) == len(expected) == 8
    for first, second, (epoch, index) in zip(*steps, expected):
        assert first[0] == second[0] == epoch
        assert Counter(first[1] + second[1]) == Counter(index)
        assert not {identity[i] for i in first[1]} & {identity[i] for i in second[1]}
    validated = [[index for stage, index in result[1] if stage == "validate"] for result in results]
    assert validated[0] == [[0, 2, 4, 6], [8, 10]] * 2
    assert validated[1] == [[1, 3, 5, 7], [9]] * 2


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("cache", [False, True])
def test_bad_training_image_stops_before_training(dataset, tmp_path, cache):
    bad = dataset.root / dataset.samples("train")[3].path
    bad.write_bytes(bad.read_bytes()[:200])
    options = {"cache_dir": str(tmp_path / "cache")} if cache else {}
    with pytest.raises(VIReIDError, match=rf"{bad.name} .*on_bad_image: skip"):
        make(dataset, **options).setup("fit")


def test_missing_training_image_stops_before_training(dataset):
    (dataset.root / dataset.samples("train")[0].path).unlink()
    (dataset.root / dataset.samples("train")[1].path).write_bytes(b"")
    with pytest.raises(VIReIDError, match="1 more cannot be read"):
        make(dataset).setup("fit")


@pytest.mark.parametrize("cache", [False, True])
def test_skipped_training_images_are_left_out_and_counted(dataset, tmp_path, cache):
    samples = dataset.samples("train")
    (dataset.root / samples[0].path).write_bytes(b"")
    (dataset.root / samples[7].path).unlink()
    data = make(dataset, on_bad_image="skip", **({"cache_dir": str(tmp_path / "cache")} if cache else {}))
    with pytest.warns(UserWarning, match=rf"2 of {len(samples)} training images .* left out"):
        data.setup("fit")
    kept = [sample for position, sample in enumerate(samples) if position not in (0, 7)]
    assert data.train_samples == kept
    for batch in data.train_dataloader():
        for index, identity in zip(batch["index"], batch["identity"]):
            assert data.identities[identity] == kept[index].identity


def damage(path):
    """Break a PNG where only decoding shows it."""
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)


@pytest.mark.parametrize("cache", [False, True])
def test_image_that_only_decoding_reveals_gives_way_to_another(dataset, tmp_path, cache):
    samples = dataset.samples("train")
    position = next(i for i, sample in enumerate(samples) if (sample.identity, sample.modality) == (11, 0))
    damage(dataset.root / samples[position].path)
    options = {"cache_dir": str(tmp_path / "cache")} if cache else {}
    with pytest.raises(VIReIDError, match="11_v0"):
        train_batches(dataset, steps_per_epoch=10, **options)
    results = []
    for num_workers in (0, 2):
        data = make(dataset, on_bad_image="skip", steps_per_epoch=10, num_workers=num_workers, **options)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            results.append(list(data.train_dataloader()))
        assert data.skipped == 1
        drawn = Counter(int(index) for batch in results[-1] for index in batch["index"])
        assert position not in drawn
        assert drawn[position + 1] > drawn[position + 2]  # it stands in
        with pytest.warns(UserWarning, match="1 training image"):
            data.teardown("fit")
    assert same(*results)


def test_no_image_left_to_stand_in(dataset):
    samples = [Sample("absent.png", 2, 0, 1), Sample("other.png", 2, 1, 1)]
    images = TrainingImages(samples, _Absent(), [2], [], skip_bad=True)
    with pytest.warns(UserWarning, match="number 0"), pytest.raises(BadImageError, match="number 0"):
        images[Draw(0, 0)]


class _Absent:
    def __getitem__(self, position):
        raise BadImageError(f"Image number {position} is missing.")


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("cache", [False, True])
def test_evaluation_never_skips(dataset, tmp_path, policy, cache):
    (dataset.root / dataset.samples("test")[4].path).write_bytes(b"text")
    data = make(dataset, on_bad_image=policy, **({"cache_dir": str(tmp_path / "cache")} if cache else {}))
    for stage in ("fit", "validate", "test", "predict"):
        with pytest.raises(VIReIDError, match="Evaluation cannot skip files"):
            data.setup(stage)


def test_summary(dataset):
    assert make(dataset).summary() == {
        "dataset": "Fake",
        "splits": {
            "train": {"identities": 6, "visible": 21, "infrared": 20, "cameras": 2},
            "val": {"identities": 3, "visible": 6, "infrared": 6, "cameras": 2},
            "test": {"identities": 3, "visible": 6, "infrared": 6, "cameras": 2},
        },
        "world_size": 1,
        "validation_protocol": "infrared-to-visible",
        "image_size": list(SIZE),
        "identities_per_batch": P,
        "images_per_modality": K,
        "steps_per_epoch": 4,
    }


class Unlabelled(FakeDataset):
    labelled = False

    def identities(self, split):
        return [] if split == "train" else ReIDDataset.identities(self, split)


def test_unlabelled_training_set_is_told(dataset):
    data = make(Unlabelled(dataset.root))
    assert data.num_identities == 0
    with pytest.raises(VIReIDError, match="learn without labels"):
        data.setup("fit")


def test_too_many_identities_per_batch_is_told_at_setup(dataset):
    with pytest.raises(VIReIDError, match="set identities_per_batch to 4 or fewer"):
        make(dataset, identities_per_batch=5).setup("fit")


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 8)},
        {"eval_batch_size": 0},
        {"num_workers": -1},
        {"seed": -1},
        {"interpolation": "cubicle"},
        {"on_bad_image": "ignore"},
        {"visible_transforms": Augmentation(flip=2)},
        {"infrared_transforms": "mpa"},
    ],
)
def test_arguments_out_of_range_are_refused(dataset, options):
    with pytest.raises(VIReIDError):
        make(dataset, **options)
