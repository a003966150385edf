"""Synthetic datasets on disk: the same bytes every time, and nothing of a user's overwritten."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from vireid_lightning.data.synthetic.dataset import Synthetic
from vireid_lightning.data.synthetic.drawing import MARKER, write_plan
from vireid_lightning.data.synthetic.layouts import plan_regdb_like, plan_sysu_mm01, plan_sysu_mm01_like
from vireid_lightning.errors import VIReIDError

TINY = {"identities": 2, "val_identities": 2, "test_identities": 2, "images": 1, "image_size": (32, 16)}


def tiny_plan():
    return plan_sysu_mm01(train=2, val=1, test=2, images_per_camera=2)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "tiny"
    write_plan(tiny_plan(), root, image_size=(32, 16), workers=1)
    return root


@pytest.mark.slow
def test_same_bytes_with_any_number_of_workers(drawn, tmp_path):
    write_plan(tiny_plan(), tmp_path / "two", image_size=(32, 16), workers=2)
    assert contents(tmp_path / "two") == contents(drawn)


def test_another_seed_gives_other_images(drawn, tmp_path):
    write_plan(tiny_plan(), tmp_path / "other", seed=1, image_size=(32, 16), workers=1)
    here, there = contents(tmp_path / "other"), contents(drawn)
    assert here.keys() == there.keys()
    images = [path for path in here if path.endswith(".jpg")]
    assert all(here[path] != there[path] for path in images)


def test_files_are_those_of_the_plan_and_infrared_is_grey(drawn):
    plan = tiny_plan()
    expected = {image.path for image in plan.images} | set(plan.index_files) | {MARKER}
    assert contents(drawn).keys() == expected
    for image in plan.images:
        blue, green, red = cv2.split(cv2.imread(str(drawn / image.path), cv2.IMREAD_COLOR))
        assert blue.shape == (32, 16)
        grey = np.array_equal(blue, green) and np.array_equal(blue, red)
        assert grey == (image.modality == 1)


def test_drawing_again_changes_nothing(drawn):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*") if path.is_file() and path.suffix}
    write_plan(tiny_plan(), drawn, image_size=(32, 16), workers=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_refused(drawn):
    with pytest.raises(VIReIDError, match="other settings"):
        write_plan(tiny_plan(), drawn, seed=5, image_size=(32, 16), workers=1)
    with pytest.raises(VIReIDError, match="other settings"):
        write_plan(plan_sysu_mm01(2, 1, 3, 2), drawn, image_size=(32, 16), workers=1)


def test_a_users_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(VIReIDError, match="not empty"):
        write_plan(tiny_plan(), tmp_path, workers=1)
    assert contents(tmp_path) == {"holiday.jpg": b"mine"}
    with pytest.raises(VIReIDError, match="is a file"):
        write_plan(tiny_plan(), tmp_path / "holiday.jpg", workers=1)


def test_an_interrupted_drawing_is_continued(drawn, tmp_path, monkeypatch):
    from vireid_lightning.data.synthetic import drawing

    write_whole, calls = drawing._write_whole, iter(range(1000))

    def interrupted(path: Path, content: bytes) -> None:
        if next(calls) == 20:
            path.with_name(path.name + ".part").write_bytes(content[:10])
            raise KeyboardInterrupt
        write_whole(path, content)

    root = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "_write_whole", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_plan(tiny_plan(), root, image_size=(32, 16), workers=1)
    assert not (root / MARKER).exists()
    assert len(list(root.rglob("*.jpg"))) == 19
    write_plan(tiny_plan(), root, image_size=(32, 16), workers=1)
    assert contents(root) == contents(drawn)


def test_zero_workers_are_refused(tmp_path):
    with pytest.raises(VIReIDError, match="workers is 0"):
        write_plan(tiny_plan(), tmp_path / "root", workers=0)


def test_like_the_real_sysu_mm01(shared_data):
    plan = plan_sysu_mm01_like(shared_data / "sysu_mm01" / "exp")
    train, val, test = (
        {int(word) for word in plan.index_files[f"exp/{part}_id.txt"].decode().strip().rstrip(",").split(",")}
        for part in ("train", "val", "test")
    )
    count = Counter((image.identity in test, image.modality) for image in plan.images)
    # As the papers print them: 22,258 + 11,909 to train on; 3,803 queries and 6,775 visible test images.
    assert count == {(False, 0): 22_258, (False, 1): 11_909, (True, 1): 3_803, (True, 0): 6_775}
    assert (len(train), len(val), len(test)) == (296, 99, 96)


def test_like_the_real_regdb(shared_data):
    plan = plan_regdb_like(shared_data / "regdb" / "idx")
    count = Counter((image.identity, image.modality) for image in plan.images)
    assert len(count) == 2 * 412
    assert set(count.values()) == {10}


def test_synthetic_reads_as_sysu_mm01(tmp_path):
    dataset = Synthetic(tmp_path, **TINY)
    assert dataset.name == "Synthetic"
    assert [len(dataset.identities(split)) for split in ("train", "val", "test")] == [2, 2, 2]
    samples = dataset.samples("test")
    assert len(samples) == 2 * 6
    names = {protocol.name for protocol in dataset.protocols(samples)}
    assert {"all/single/official", "indoor/multi/official", "all/single/seeded"} <= names
    assert len(Synthetic(tmp_path, **TINY, train="train+val", validation="test").identities("train")) == 4
    assert len(list(tmp_path.iterdir())) == 1, "the choice of splits draws nothing new"
    Synthetic(tmp_path, **TINY, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_processes_may_construct_it_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=Synthetic, args=(tmp_path,), kwargs=TINY) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = tmp_path.iterdir()
    assert (folder / MARKER).exists()
    assert len(list(folder.rglob("*.jpg"))) == 6 * 6
    assert not list(folder.rglob("*.part"))
