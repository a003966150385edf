"""RegDB: the real splits, and bad input."""

from __future__ import annotations

import pytest
from layout_files import edit, write, write_plan

from vireid_lightning.data import RegDB, Sample
from vireid_lightning.data.synthetic.layouts import plan_regdb, plan_regdb_like
from vireid_lightning.errors import VIReIDError


@pytest.fixture
def root(tmp_path):
    return write_plan(plan_regdb(identities=8, images_per_modality=3, trials=2), tmp_path)


@pytest.mark.slow
def test_the_real_splits(shared_data):
    root = shared_data / "regdb"
    images = {image.path: image for image in plan_regdb_like(root / "idx").images}
    assert len(images) == 412 * 20
    for trial in range(1, 11):
        dataset = RegDB(root, trial=trial)
        train, test = dataset.identities("train"), dataset.identities("test")
        assert sorted(train + test) == list(range(1, 413))
        assert (len(train), dataset.trial) == (206, trial)
    samples = [Sample(i.path, i.identity, i.modality, i.camera) for i in images.values() if i.identity in test]
    both = dataset.protocols(samples)
    assert [(p.name, p.removal, p.cmc, p.labels["trial"]) for p in both] == [
        ("visible-to-infrared", "none", "image", "10"),
        ("infrared-to-visible", "none", "image", "10"),
    ]
    for protocol in both:
        (trial,) = protocol.trials
        assert len(trial.query) == len(trial.gallery) == 2060
        assert {samples[position].identity for position in trial.query} == set(test)


def test_trials_differ(root):
    assert RegDB(root, trial=1).identities("test") != RegDB(root, trial=2).identities("test")
    assert RegDB(root, trial=1).distance == "euclidean"


@pytest.mark.parametrize("trial", [0, 11, -1, "1", 1.0, True])
def test_a_wrong_trial_is_refused(root, trial):
    with pytest.raises(VIReIDError, match=r"no trial .* from 1 to 10"):
        RegDB(root, trial=trial)


def test_the_index_file_of_an_absent_trial_is_named(root):
    with pytest.raises(VIReIDError, match=r"train_visible_3\.txt is missing"):
        RegDB(root, trial=3)


def test_all_missing_files_are_counted_and_ten_are_shown(root):
    dataset = RegDB(root)
    samples = dataset.samples("test")
    for sample in samples[:12]:
        (root / sample.path).unlink()
    with pytest.raises(VIReIDError, match=r"12 files listed in idx/test_visible_1.txt and .* and 2 more") as error:
        dataset.samples("test")
    assert sum(sample.path in str(error.value) for sample in samples[:12]) == 10
    dataset.samples("train")


def test_one_missing_file(root):
    dataset = RegDB(root)
    path = dataset.samples("train")[3].path
    (root / path).unlink()
    with pytest.raises(VIReIDError, match=f"1 file listed in .* is missing below .*: {path}"):
        dataset.samples("train")


def test_index_files_may_end_their_lines_either_way(root):
    dataset = RegDB(root)
    expected = dataset.samples("train")
    for path in (root / "idx").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"/", b"\\"))
    assert RegDB(root).samples("train") == expected


def test_a_broken_line_is_named(root):
    path = root / "idx/test_thermal_1.txt"
    write(path, path.read_text() + "Thermal/1/only_a_path.bmp\r\n")
    with pytest.raises(VIReIDError, match=r"line 13 of .*test_thermal_1\.txt .* 2 parts"):
        RegDB(root)


def test_a_label_of_two_folders_is_named(root):
    first = RegDB(root).identities("train")[0]
    edit(root / "idx/train_thermal_1.txt", f"Thermal/{first}/", "Thermal/99/")
    with pytest.raises(VIReIDError, match=f"belongs to the folders {first} and 99"):
        RegDB(root)


def test_a_line_that_comes_twice_is_named(root):
    path = root / "idx/train_thermal_1.txt"
    line = path.read_text().splitlines()[0]
    write(path, path.read_text() + line)
    with pytest.raises(VIReIDError, match=f"{line.split()[0]} twice"):
        RegDB(root)
