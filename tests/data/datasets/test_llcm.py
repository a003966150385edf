"""LLCM: seeded galleries against a plain reference, and bad input."""

from __future__ import annotations

import random

import pytest
from layout_files import edit, write, write_plan

from vireid_lightning.data import LLCM
from vireid_lightning.data.synthetic.layouts import plan_llcm
from vireid_lightning.errors import VIReIDError


@pytest.fixture
def root(tmp_path):
    return write_plan(plan_llcm(train=4, test=4, images_per_camera=3), tmp_path)


def test_galleries_are_drawn_as_the_authors_draw_them(root):
    """One choice from each sorted folder that exists, identities outermost; not all are in all cameras."""
    for folder in ("test_vis/cam3/0006", "test_nir/cam1/0005", "test_vis/cam9/0008"):
        for file in (root / folder).iterdir():
            file.unlink()
        (root / folder).rmdir()
    dataset = LLCM(root)
    samples = dataset.samples("test")
    names = sorted(f"{int(number):04d}" for number in (root / "idx/test_id.txt").read_text().strip().split(","))
    folders = {"visible-to-infrared": ("test_nir", "12456789"), "infrared-to-visible": ("test_vis", "123456789")}
    state = random.getstate()
    for protocol in dataset.protocols(samples):
        assert (protocol.removal, protocol.cmc) == ("same-camera", "identity")
        assert protocol.labels == {"direction": protocol.name, "sampling": "seeded"}
        folder, cameras = folders[protocol.name]
        for number, trial in enumerate(protocol.trials):
            random.seed(number)
            drawn = []
            for name in names:
                for camera in cameras:
                    files = sorted((root / f"{folder}/cam{camera}/{name}").glob("*"))
                    if files:
                        drawn.append(random.choice([file.relative_to(root).as_posix() for file in files]))
            assert [samples[position].path for position in trial.gallery] == drawn
        assert len(protocol.trials) == 10
    random.setstate(state)


def test_training_identities_and_cameras_come_from_the_paths(root):
    dataset = LLCM(root)
    assert dataset.identities("train") == [1, 2, 3, 4]
    assert {sample.camera for sample in dataset.samples("train")} == set(range(1, 10))
    edit(root / "idx/train_vis.txt", "vis/0001/0001_c01_s000001_f00001_vis.jpg", "vis/0001/unnamed.jpg")
    write(root / "vis/0001/unnamed.jpg", b"an image")
    sample = next(sample for sample in LLCM(root).samples("train") if "unnamed" in sample.path)
    assert (sample.identity, sample.camera, sample.modality) == (1, -1, 0)


def test_saved_embeddings_need_the_index_files_only(root, tmp_path):
    dataset = LLCM(root)
    samples = dataset.samples("test")
    before = dataset.protocols(samples)
    for folder in ("test_vis", "test_nir"):
        (root / folder).rename(tmp_path / f"away_{folder}")
    for one, other in zip(before, LLCM(root).protocols(samples)):
        assert all((a.gallery == b.gallery).all() for a, b in zip(one.trials, other.trials))


def test_missing_training_files_are_listed(root):
    for number in (1, 2):
        (root / f"nir/0002/0002_c05_s000005_f0000{number}_nir.jpg").unlink()
    with pytest.raises(VIReIDError, match=r"2 files listed in .*train_nir\.txt .*0002_c05_s000005_f00001_nir"):
        LLCM(root).samples("train")


def test_a_test_identity_without_images_is_named(root):
    edit(root / "idx/test_id.txt", "8", "8,77")
    with pytest.raises(VIReIDError, match=r"1 of the 5 identities of idx/test_id.txt .* 0077"):
        LLCM(root).samples("test")


def test_a_folder_that_is_no_identity_is_named(root):
    edit(root / "idx/train_vis.txt", "vis/0001/", "vis/someone/")
    with pytest.raises(VIReIDError, match=r"train_vis\.txt has 'someone'"):
        LLCM(root)


def test_shared_identities_are_named(root):
    edit(root / "idx/test_id.txt", "5", "4,5")
    with pytest.raises(VIReIDError, match="both for training and for test: 4"):
        LLCM(root)


@pytest.mark.parametrize("name", ["train_vis.txt", "train_nir.txt", "test_id.txt"])
def test_empty_index_files_are_named(root, name):
    write(root / "idx" / name, "")
    with pytest.raises(VIReIDError, match=f"{name} is empty"):
        LLCM(root)
