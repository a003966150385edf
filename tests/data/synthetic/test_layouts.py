"""Layout plans: the structure asked for, the true file formats, and bad input."""

from __future__ import annotations

import inspect
import io
from collections import Counter, defaultdict

import pytest
import scipy.io
from layout_files import write

from vireid_lightning.data.synthetic import layouts
from vireid_lightning.data.synthetic.layouts import (
    plan_llcm,
    plan_manifest,
    plan_market1501,
    plan_msmt17,
    plan_regdb,
    plan_regdb_like,
    plan_sysu_mm01,
    plan_sysu_mm01_like,
    plan_sysu_mm02,
)
from vireid_lightning.errors import VIReIDError

PLANNERS = [plan_llcm, plan_manifest, plan_market1501, plan_msmt17, plan_regdb, plan_sysu_mm01, plan_sysu_mm02]


@pytest.mark.parametrize("planner", PLANNERS)
def test_every_plan(planner):
    plan, again = planner(), planner()
    assert (plan.images, plan.index_files) == (again.images, again.index_files)
    paths = [image.path for image in plan.images]
    assert paths == sorted(set(paths))
    assert not set(paths) & set(plan.index_files)
    drawn = Counter((image.person, image.camera, image.modality, image.number) for image in plan.images)
    assert max(drawn.values()) == 1, "two files would show the same picture"
    assert min(image.number for image in plan.images) == 1


def test_no_two_layouts_share_a_person():
    seen = defaultdict(set)
    for planner in PLANNERS:
        for image in planner().images:
            seen[image.person].add(planner.__name__)
    assert all(len(names) == 1 for names in seen.values())


@pytest.mark.parametrize("planner", PLANNERS)
def test_nothing_to_plan_is_refused(planner):
    for name in inspect.signature(planner).parameters:
        if name not in ("seed", "val", "distractors"):
            with pytest.raises(VIReIDError):
                planner(**{name: 0})


def test_exports():
    assert {planner.__name__ for planner in PLANNERS} <= set(layouts.__all__)


def test_sysu_mm01_has_the_numbers_asked_for():
    plan = plan_sysu_mm01(train=7, val=2, test=4, images_per_camera=3)
    assert len(plan.images) == 13 * 6 * 3
    assert plan.index_files["exp/val_id.txt"] == b"8,9\n"
    for part, identities in (("train", range(1, 8)), ("test", range(10, 14)), ("available", range(1, 14))):
        matrix = scipy.io.loadmat(io.BytesIO(plan.index_files[f"exp/{part}_id.mat"]))["id"]
        assert matrix.tolist() == [list(identities)]
        assert plan.index_files[f"exp/{part}_id.txt"].decode().strip() == ",".join(map(str, identities))


@pytest.mark.parametrize("images", [1, 3, 300])
def test_sysu_mm01_matrices_are_nested_as_the_real_ones(images):
    plan = plan_sysu_mm01(train=1, val=1, test=1, images_per_camera=images)
    matrices = scipy.io.loadmat(io.BytesIO(plan.index_files["exp/rand_perm_cam.mat"]))["rand_perm_cam"]
    assert (matrices.shape, matrices.dtype) == ((6, 1), object)
    for camera in matrices[:, 0]:
        assert (camera.shape, camera.dtype) == ((3, 1), object)
        for order in camera[:, 0]:
            assert order.shape == (10, images)
            assert all(sorted(row) == list(range(1, images + 1)) for row in order.tolist())
    other = plan_sysu_mm01(train=1, val=1, test=1, images_per_camera=images, seed=1)
    assert (other.index_files != plan.index_files) == (images > 1)


def test_sysu_mm01_like_the_real_files(shared_data):
    exp = shared_data / "sysu_mm01" / "exp"
    plan = plan_sysu_mm01_like(exp)
    assert len(plan.images) == 22258 + 11909 + 6775 + 3803
    assert len({image.identity for image in plan.images}) == 491
    matrices = scipy.io.loadmat(exp / "rand_perm_cam.mat")["rand_perm_cam"]
    counts = Counter((image.camera, image.identity) for image in plan.images)
    for camera in range(1, 7):
        cells = matrices[camera - 1, 0]
        for identity in {image.identity for image in plan.images}:
            expected = cells[identity - 1, 0].shape[1] if identity <= len(cells) else 0
            assert counts[camera, identity] == expected
    for path in exp.iterdir():
        assert plan.index_files[f"exp/{path.name}"] == path.read_bytes()


def test_regdb_splits_are_halves_that_differ():
    plan = plan_regdb(identities=8, images_per_modality=2, trials=3)
    assert len(plan.index_files) == 12
    halves = set()
    for trial in (1, 2, 3):
        parts = {}
        for part in ("train", "test"):
            rows = [plan.index_files[f"idx/{part}_{word}_{trial}.txt"].decode() for word in ("visible", "thermal")]
            labels = [[tuple(line.split()) for line in text.splitlines()] for text in rows]
            visible, thermal = ([(path.split("/")[1], label) for path, label in column] for column in labels)
            assert visible == thermal
            assert [label for _, label in visible] == ["0", "0", "1", "1", "2", "2", "3", "3"]
            parts[part] = {identity for identity, _ in visible}
        assert len(parts["train"] | parts["test"]) == 8
        halves.add(frozenset(parts["train"]))
    assert len(halves) > 1
    with pytest.raises(VIReIDError, match="identities=7 is odd"):
        plan_regdb(identities=7)


def test_regdb_like_the_real_files(shared_data):
    idx = shared_data / "regdb" / "idx"
    plan = plan_regdb_like(idx)
    assert Counter((image.identity, image.modality) for image in plan.images) == {
        (identity, modality): 10 for identity in range(1, 413) for modality in (0, 1)
    }
    assert "Visible/285/male_back_v_05528_285.bmp" in {image.path for image in plan.images}
    assert plan.index_files == {f"idx/{path.name}": path.read_bytes() for path in idx.iterdir()}


def test_nothing_to_be_like_is_refused(tmp_path):
    with pytest.raises(VIReIDError, match="does not exist"):
        plan_sysu_mm01_like(tmp_path / "exp")
    with pytest.raises(VIReIDError, match=r"train_id\.txt is missing"):
        plan_sysu_mm01_like(tmp_path)
    with pytest.raises(VIReIDError, match="no index file"):
        plan_regdb_like(tmp_path)
    write(tmp_path / "train_visible_1.txt", "")
    with pytest.raises(VIReIDError, match=r"train_visible_1\.txt is empty"):
        plan_regdb_like(tmp_path)


def test_sysu_mm02_names_tell_nothing_of_who_is_in_the_training_images():
    plan = plan_sysu_mm02(train=5, test=2, images_per_camera=6)
    train = [image for image in plan.images if image.path.startswith("train/")]
    people = [image.person for image in train if image.camera == 1]
    assert people != sorted(people)
    assert {image.identity for image in train} == {-1}
    test = Counter((image.identity, image.modality) for image in plan.images if image.path.startswith("test/"))
    assert set(test.values()) == {6}
