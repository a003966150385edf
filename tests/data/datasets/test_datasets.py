"""The contract that every dataset keeps: one suite, inherited for each layout."""

from __future__ import annotations

import pickle
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from layout_files import write, write_plan

from vireid_lightning.data import (
    LLCM,
    MSMT17,
    SYSUMM01,
    SYSUMM02,
    UNKNOWN,
    Manifest,
    Market1501,
    RegDB,
    ReIDDataset,
    Sample,
)
from vireid_lightning.data.synthetic.layouts import (
    LayoutPlan,
    plan_llcm,
    plan_manifest,
    plan_market1501,
    plan_msmt17,
    plan_regdb,
    plan_sysu_mm01,
    plan_sysu_mm02,
)
from vireid_lightning.errors import VIReIDError

SPLITS = ("train", "val", "test")


class DatasetContract:
    """What holds for every dataset; a subclass gives a plan, a way to open it and a way to add one image."""

    plan: LayoutPlan
    #: identities of train, val and test that the plan was made with
    sizes: tuple[int, int, int]

    def open(self, root: Path) -> ReIDDataset:
        raise NotImplementedError

    def add_image(self, root: Path) -> None:
        """Add one image in the way of the layout."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_plan(self.plan, tmp_path / self.plan.layout)

    @pytest.fixture
    def dataset(self, root: Path) -> ReIDDataset:
        return self.open(root)

    def test_identities_are_sorted_and_stable(self, root, dataset):
        for split in SPLITS:
            identities = dataset.identities(split)
            assert identities == sorted(set(identities))
            assert UNKNOWN not in identities
            assert identities == self.open(root).identities(split)
        assert tuple(len(dataset.identities(split)) for split in SPLITS) == self.sizes

    def test_no_identity_is_both_trained_on_and_searched(self, dataset):
        train = set(dataset.identities("train"))
        assert not train & set(dataset.identities("test"))
        assert not train & set(dataset.identities("val"))
        paths = {sample.path for sample in dataset.samples("train")}
        assert not paths & {sample.path for split in ("val", "test") for sample in dataset.samples(split)}

    def test_samples_are_stable_and_on_disk(self, root, dataset):
        for split in SPLITS:
            samples = dataset.samples(split)
            assert samples == self.open(root).samples(split)
            paths = [sample.path for sample in samples]
            assert paths == sorted(paths)
            assert len(set(paths)) == len(paths)
            assert all((root / path).is_file() and "\\" not in path for path in paths)
            known = {sample.identity for sample in samples} - {UNKNOWN}
            assert known == set(dataset.identities(split))

    def test_every_planned_image_is_read_as_planned(self, dataset):
        planned = {image.path: image for image in self.plan.images if image.identity != -1 or not dataset.labelled}
        read = {sample.path: sample for split in SPLITS for sample in dataset.samples(split)}
        assert read.keys() == planned.keys()
        for path, sample in read.items():
            assert (sample.modality, sample.camera) == (planned[path].modality, planned[path].camera)

    def test_an_identity_is_a_person(self, dataset):
        people = {image.path: image.person for image in self.plan.images}
        identities, persons = defaultdict(set), defaultdict(set)
        for split in SPLITS:
            for sample in dataset.samples(split):
                if sample.identity != UNKNOWN:
                    identities[people[sample.path]].add(sample.identity)
                    persons[sample.identity].add(people[sample.path])
        assert all(len(numbers) == 1 for numbers in [*identities.values(), *persons.values()])

    def test_labels(self, dataset):
        unknown = {sample.identity == UNKNOWN for sample in dataset.samples("train")}
        assert unknown == {not dataset.labelled}

    def test_fingerprint_is_stable_and_follows_the_images(self, root, dataset, tmp_path):
        copy = write_plan(self.plan, tmp_path / "copy")
        assert self.open(copy).fingerprint() == dataset.fingerprint() == dataset.fingerprint()
        self.add_image(copy)
        assert self.open(copy).fingerprint() != dataset.fingerprint()

    def test_it_travels_to_worker_processes(self, dataset):
        assert pickle.loads(pickle.dumps(dataset)).samples("train") == dataset.samples("train")

    def test_a_missing_root_is_named(self, root):
        with pytest.raises(VIReIDError, match="nowhere"):
            self.open(root / "nowhere")


class CrossModalityContract(DatasetContract):
    """What holds for every dataset that has both modalities."""

    protocol_names: tuple[str, ...]

    def test_protocols_are_valid(self, dataset):
        for split in ("val", "test"):
            samples = dataset.samples(split)
            protocols = dataset.protocols(samples, split)
            assert tuple(protocol.name for protocol in protocols) == self.protocol_names
            assert dataset.default_protocol in self.protocol_names
            for protocol in protocols:
                for trial in protocol.trials:
                    for part in (trial.query, trial.gallery):
                        assert part.dtype == "int64"
                        assert len(set(part.tolist())) == len(part) > 0
                        assert 0 <= part.min() <= part.max() < len(samples)
                    queries = [samples[position] for position in trial.query]
                    gallery = [samples[position] for position in trial.gallery]
                    (modality,) = {sample.modality for sample in queries}
                    assert {sample.modality for sample in gallery} == {1 - modality}
                    assert all(has_true_match(query, gallery, protocol.removal) for query in queries)

    def test_protocols_do_not_depend_on_the_order_of_the_samples(self, dataset):
        samples = dataset.samples("test")
        shuffled = random.Random(1).sample(samples, len(samples))
        for one, other in zip(dataset.protocols(samples), dataset.protocols(shuffled)):
            for trial, same in zip(one.trials, other.trials):
                for part, again in ((trial.query, same.query), (trial.gallery, same.gallery)):
                    assert {samples[position] for position in part} == {shuffled[position] for position in again}

    def test_protocols_refuse_images_that_the_split_does_not_list(self, dataset):
        samples = dataset.samples("test")
        foreign = dataset.samples("train")[:2]
        with pytest.raises(VIReIDError, match=rf"2 images are none of the {len(samples)} .*{foreign[0].path}"):
            dataset.protocols([*samples, *foreign])
        another = replace(samples[0], path=samples[0].path + ".copy.jpg")
        with pytest.raises(VIReIDError, match=rf"1 images are none of the {len(samples)} .*copy\.jpg"):
            dataset.protocols([*samples, another])

    def test_protocols_need_every_image(self, dataset):
        samples = dataset.samples("test")
        missing = samples.pop(len(samples) // 2)
        with pytest.raises(VIReIDError, match=rf"1 of the {len(samples) + 1} images .*{missing.path}"):
            dataset.protocols(samples)

    def test_protocols_refuse_an_image_listed_twice(self, dataset):
        samples = dataset.samples("test")
        with pytest.raises(VIReIDError, match="listed twice"):
            dataset.protocols([*samples, samples[0]])

    def test_protocols_refuse_an_image_under_another_identity(self, dataset):
        samples = dataset.samples("test")
        wrong = samples[0]
        samples[0] = Sample(wrong.path, wrong.identity + 1000, wrong.modality, wrong.camera)
        with pytest.raises(VIReIDError, match=f"{wrong.path} comes with identity {wrong.identity + 1000}"):
            dataset.protocols(samples)


def has_true_match(query: Sample, gallery: list[Sample], removal: str) -> bool:
    """Say the removal rules again, in the plainest way."""
    for image in gallery:
        if image.identity != query.identity:
            continue
        if removal == "sysu" and query.camera == 3 and image.camera == 2:
            continue
        if removal == "same-camera" and query.camera == image.camera != UNKNOWN:
            continue
        return True
    return False


def append_line(root: Path, index_file: str, path: str, *words: object) -> None:
    """Add an image, and its line in an index file."""
    write(root / path, b"an image")
    with (root / index_file).open("a") as file:
        file.write(" ".join([path, *map(str, words)]) + "\n")


SYSU_PROTOCOLS = (
    "all/single/official",
    "all/multi/official",
    "indoor/single/official",
    "indoor/multi/official",
    "all/single/seeded",
    "indoor/single/seeded",
)
BOTH_DIRECTIONS = ("visible-to-infrared", "infrared-to-visible")


class TestSYSUMM01(CrossModalityContract):
    plan = plan_sysu_mm01(train=4, val=2, test=3, images_per_camera=2)
    protocol_names = SYSU_PROTOCOLS
    sizes = (4, 2, 3)

    def open(self, root):
        return SYSUMM01(root, train="train", validation="val")

    def add_image(self, root):
        write(root / "cam1/0001/0003.jpg", b"an image")


class TestRegDB(CrossModalityContract):
    plan = plan_regdb(identities=6, images_per_modality=3, trials=2)
    protocol_names = BOTH_DIRECTIONS
    sizes = (3, 3, 3)

    def open(self, root):
        return RegDB(root, trial=2)

    def add_image(self, root):
        identity = RegDB(root, trial=2).identities("train")[0]
        label = (root / "idx/train_visible_2.txt").read_text().split(f"Visible/{identity}/")[1].split()[1]
        append_line(root, "idx/train_visible_2.txt", f"Visible/{identity}/new.bmp", label)


class TestLLCM(CrossModalityContract):
    plan = plan_llcm(train=4, test=3, images_per_camera=2)
    protocol_names = BOTH_DIRECTIONS
    sizes = (4, 3, 3)

    def open(self, root):
        return LLCM(root)

    def add_image(self, root):
        write(root / "test_nir/cam9/0005/0005_c09_s000009_f00009_nir.jpg", b"an image")


class TestSYSUMM02(CrossModalityContract):
    plan = plan_sysu_mm02(train=4, test=3, images_per_camera=4)
    protocol_names = BOTH_DIRECTIONS
    sizes = (0, 3, 3)

    def open(self, root):
        return SYSUMM02(root)

    def add_image(self, root):
        append_line(root, "train.txt", "train/cam2/999999.jpg", 0, 2)


class TestManifest(CrossModalityContract):
    plan = plan_manifest(train=4, val=2, test=3, images_per_camera=2)
    protocol_names = BOTH_DIRECTIONS
    sizes = (4, 2, 3)

    def open(self, root):
        return Manifest(root / "manifest.csv")

    def add_image(self, root):
        write(root / "new.jpg", b"an image")
        with (root / "manifest.csv").open("a") as file:
            file.write("new.jpg,1,rgb,,train\n")


class VisibleOnlyContract(DatasetContract):
    """Datasets of visible images have no protocol; all else is the same."""

    def test_protocols_are_refused(self, dataset):
        with pytest.raises(VIReIDError, match="visible images only"):
            dataset.protocols(dataset.samples("test"))


class TestMarket1501(VisibleOnlyContract):
    plan = plan_market1501(train=4, test=3, images_per_camera=2, distractors=5)
    sizes = (4, 3, 3)

    def open(self, root):
        return Market1501(root)

    def add_image(self, root):
        write(root / "bounding_box_train/0002_c3s2_000999_01.jpg", b"an image")


class TestMSMT17(VisibleOnlyContract):
    plan = plan_msmt17(train=4, test=3, images_per_identity=10)
    sizes = (4, 3, 3)

    def open(self, root):
        return MSMT17(root)

    def add_image(self, root):
        path = "0000/0000_099_03_0303morning_0001_0.jpg"
        append_line(root, "list_train.txt", path, 0)
        (root / path).rename(root / "train" / path)
