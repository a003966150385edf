"""SYSU-MM01: the real structure's counts, both samplings against plain references, and bad input."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import scipy.io
from layout_files import write, write_plan

from vireid_lightning.data import SYSUMM01, Sample
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01, plan_sysu_mm01_like
from vireid_lightning.errors import VIReIDError

PLAN = plan_sysu_mm01(train=3, val=2, test=3, images_per_camera=2)


@pytest.fixture
def root(tmp_path):
    return write_plan(PLAN, tmp_path)


@pytest.fixture(scope="module")
def real(shared_data):
    """The real exp folder's dataset, and the samples of all 491 identities; only ``root/exp`` is on disk."""
    root = shared_data / "sysu_mm01"
    plan = plan_sysu_mm01_like(root / "exp")
    return root, [Sample(image.path, image.identity, image.modality, image.camera) for image in plan.images]


def of(samples, dataset, split):
    identities = set(dataset.identities(split))
    return [sample for sample in samples if sample.identity in identities]


def test_counts_of_the_real_training_sets(real):
    root, samples = real
    dataset = SYSUMM01(root)
    assert len(dataset.identities("train")) == 395
    assert Counter(sample.modality for sample in of(samples, dataset, "train")) == {0: 22258, 1: 11909}
    honest = SYSUMM01(root, train="train", validation="val")
    assert [len(honest.identities(split)) for split in ("train", "val", "test")] == [296, 99, 96]


def test_counts_of_the_real_protocols(real):
    root, samples = real
    dataset = SYSUMM01(root)
    test = of(samples, dataset, "test")
    assert sum(sample.modality == 0 for sample in test) == 6775
    gallery = {
        "all/single/official": 301,
        "all/multi/official": 3010,
        "indoor/single/official": 112,
        "indoor/multi/official": 1120,
        "all/single/seeded": 301,
        "indoor/single/seeded": 112,
    }
    protocols = dataset.protocols(test)
    assert [protocol.name for protocol in protocols] == list(gallery)
    for protocol in protocols:
        assert (protocol.removal, protocol.cmc, len(protocol.trials)) == ("sysu", "identity", 10)
        assert "/".join(protocol.labels[part] for part in ("mode", "shot", "sampling")) == protocol.name
        for trial in protocol.trials:
            assert len(trial.query) == 3803
            assert len(set(trial.gallery.tolist())) == gallery[protocol.name]
            assert {test[position].camera for position in trial.query} == {3, 6}
            cameras = {1, 2, 4, 5} if protocol.labels["mode"] == "all" else {1, 2}
            assert {test[position].camera for position in trial.gallery} == cameras
        draws = {tuple(trial.gallery.tolist()) for trial in protocol.trials}
        assert len(draws) == 10


def test_val_identities_were_seen_outdoors_only_and_have_no_indoor_search(real):
    root, samples = real
    dataset = SYSUMM01(root, train="train", validation="val")
    val = of(samples, dataset, "val")
    protocols = {protocol.name: protocol for protocol in dataset.protocols(val, "val")}
    assert set(protocols) == {"all/single/official", "all/multi/official", "all/single/seeded"}
    single = protocols[dataset.default_protocol].trials[0]
    assert {val[position].identity for position in single.gallery} == set(dataset.identities("val"))
    assert len(single.query) == 1980


def test_official_galleries_are_the_rows_of_the_matrices(real):
    root, samples = real
    dataset = SYSUMM01(root)
    test = of(samples, dataset, "test")
    protocols = {protocol.name: protocol for protocol in dataset.protocols(test)}
    matrices = scipy.io.loadmat(root / "exp" / "rand_perm_cam.mat")["rand_perm_cam"]
    identities = scipy.io.loadmat(root / "exp" / "test_id.mat")["id"][0]
    for mode, cameras in (("all", (1, 2, 4, 5)), ("indoor", (1, 2))):
        for shot, count in (("single", 1), ("multi", 10)):
            for trial in range(10):
                expected = set()
                for identity in identities:
                    for camera in cameras:
                        order = matrices[camera - 1, 0][identity - 1, 0]
                        for number in order[trial][:count]:
                            expected.add(f"cam{camera}/{identity:04d}/{number:04d}.jpg")
                gallery = protocols[f"{mode}/{shot}/official"].trials[trial].gallery
                assert {test[position].path for position in gallery} == expected


@pytest.mark.parametrize(("mode", "cameras"), [("all", ["cam1", "cam2", "cam4", "cam5"]), ("indoor", ["cam1", "cam2"])])
def test_seeded_galleries_are_those_of_random_seed_and_choice(real, mode, cameras):
    """The draw as later code makes it: one global seed a trial, one choice from each sorted folder."""
    root, samples = real
    dataset = SYSUMM01(root)
    test = of(samples, dataset, "test")
    protocol = next(p for p in dataset.protocols(test) if p.name == f"{mode}/single/seeded")
    folders: dict[str, list[str]] = {}
    for sample in test:
        folders.setdefault(sample.path.rsplit("/", 1)[0], []).append(sample.path)
    names = sorted(f"{int(number):04d}" for number in (root / "exp/test_id.txt").read_text().strip().split(","))
    state = random.getstate()
    for number, trial in enumerate(protocol.trials):
        random.seed(number)
        drawn = []
        for name in names:
            for camera in cameras:
                if f"{camera}/{name}" in folders:
                    drawn.append(random.choice(sorted(folders[f"{camera}/{name}"])))
        assert [test[position].path for position in trial.gallery] == drawn
    random.setstate(state)


def test_defaults_are_those_of_the_papers(root):
    dataset = SYSUMM01(root)
    assert dataset.identities("train") == [1, 2, 3, 4, 5]
    assert dataset.identities("val") == dataset.identities("test") == [6, 7, 8]
    assert dataset.samples("val") == dataset.samples("test")
    assert (dataset.name, dataset.distance, dataset.default_protocol) == ("SYSU-MM01", "cosine", "all/single/official")


def test_identities_read_only_the_index_files(root):
    for camera in range(1, 7):
        (root / f"cam{camera}").rename(root / f"elsewhere{camera}")
    assert SYSUMM01(root, train="train").identities("train") == [1, 2, 3]


def test_matlab_files_serve_where_text_files_are_absent(root):
    expected = SYSUMM01(root).identities("train")
    for name in ("train", "val", "test"):
        (root / f"exp/{name}_id.txt").unlink()
    assert SYSUMM01(root).identities("train") == expected


def test_trailing_comma_spaces_and_line_ends_are_fine(root):
    write(root / "exp/train_id.txt", " 3, 1,\r\n2,\r\n")
    assert SYSUMM01(root, train="train").identities("train") == [1, 2, 3]


def test_validating_on_trained_identities_is_refused(root):
    with pytest.raises(VIReIDError, match="Set train='train'"):
        SYSUMM01(root, train="train+val", validation="val")


@pytest.mark.parametrize("options", [{"train": "val"}, {"validation": "train"}])
def test_unknown_choices_are_refused(root, options):
    with pytest.raises(VIReIDError, match="give '"):
        SYSUMM01(root, **options)


@pytest.mark.parametrize("content", [None, b"", b" \n", b",", b"1,two,3", b"\xff\xfe\x00"])
def test_a_broken_index_file_is_named(root, content):
    for suffix in ("txt", "mat"):
        (root / f"exp/train_id.{suffix}").unlink()
    if content is not None:
        write(root / "exp/train_id.txt", content)
    with pytest.raises(VIReIDError, match=r"train_id\.txt"):
        SYSUMM01(root)


def test_an_identity_of_two_splits_is_named(root):
    write(root / "exp/test_id.txt", "2,7,8")
    with pytest.raises(VIReIDError, match="both for training and for val: 2"):
        SYSUMM01(root)


def test_an_identity_without_any_folder_is_named(root):
    for camera in range(1, 7):
        (root / f"cam{camera}/0002").rename(root / f"cam{camera}/moved")
    with pytest.raises(VIReIDError, match=r"1 of the 5 train identities .* 0002"):
        SYSUMM01(root).samples("train")
    SYSUMM01(root).samples("test")


def test_an_identity_absent_from_some_cameras_is_fine(root):
    for camera in (1, 3, 4):
        (root / f"cam{camera}/0002").rename(root / f"cam{camera}/moved")
    cameras = {sample.camera for sample in SYSUMM01(root).samples("train") if sample.identity == 2}
    assert cameras == {2, 5, 6}


@pytest.mark.parametrize("content", [None, b"", b"no matrix"])
def test_broken_matrices_are_named(root, content):
    (root / "exp/rand_perm_cam.mat").unlink()
    if content is not None:
        write(root / "exp/rand_perm_cam.mat", content)
    dataset = SYSUMM01(root)
    with pytest.raises(VIReIDError, match=r"rand_perm_cam\.mat"):
        dataset.protocols(dataset.samples("test"))


def test_matrices_of_another_file_are_refused(root):
    scipy.io.savemat(root / "exp/rand_perm_cam.mat", {"other": np.ones(3)})
    dataset = SYSUMM01(root)
    with pytest.raises(VIReIDError, match="no variable 'rand_perm_cam'"):
        dataset.protocols(dataset.samples("test"))


def test_missing_images_are_counted_and_the_first_is_named(root):
    dataset = SYSUMM01(root)
    samples = [sample for sample in dataset.samples("test") if sample.camera != 6]
    with pytest.raises(VIReIDError, match=r"6 of the 36 images .*cam6/0006/0001\.jpg"):
        dataset.protocols(samples)


def test_a_gallery_with_no_right_image_for_any_query_is_refused(tmp_path):
    """Identity 2 is in infrared cameras only, identity 3 in visible ones only."""
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cameras[camera - 1, 0] = np.empty((3, 1), dtype=object)
        shown = {2: camera in (3, 6), 3: camera not in (3, 6), 1: True}
        for identity in (1, 2, 3):
            matrix = np.ones((10, int(shown[identity])), dtype=np.uint8)
            cameras[camera - 1, 0][identity - 1, 0] = matrix
            if shown[identity]:
                write(tmp_path / f"cam{camera}/{identity:04d}/0001.jpg", b"an image")
    for name, identities in (("train", "1"), ("val", "1"), ("test", "2,3")):
        write(tmp_path / f"exp/{name}_id.txt", identities)
    scipy.io.savemat(tmp_path / "exp/rand_perm_cam.mat", {"rand_perm_cam": cameras})
    dataset = SYSUMM01(tmp_path)
    with pytest.raises(VIReIDError, match="none shows the identity of any query"):
        dataset.protocols(dataset.samples("test"))
