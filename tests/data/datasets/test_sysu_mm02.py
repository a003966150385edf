"""SYSU-MM02: the training identities are never read; bad input."""

from __future__ import annotations

import pytest
from layout_files import edit, write, write_plan

from vireid_lightning.data import SYSUMM02
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm02
from vireid_lightning.errors import VIReIDError


@pytest.fixture
def root(tmp_path):
    return write_plan(plan_sysu_mm02(train=4, test=3, images_per_camera=4), tmp_path)


def test_the_identity_column_of_the_training_list_is_never_read(root):
    expected = SYSUMM02(root).samples("train")
    lines = (root / "train.txt").read_text().splitlines()
    write(root / "train.txt", "\n".join(f"{line.split()[0]} unknown {line.split()[2]}" for line in lines))
    dataset = SYSUMM02(root)
    assert dataset.samples("train") == expected
    assert {sample.identity for sample in expected} == {-1}
    assert dataset.identities("train") == []
    assert not dataset.labelled


def test_protocols(root):
    dataset = SYSUMM02(root)
    samples = dataset.samples("test")
    for protocol, query in zip(dataset.protocols(samples), (0, 1)):
        (trial,) = protocol.trials
        assert (protocol.removal, protocol.cmc) == ("none", "identity")
        assert {samples[position].modality for position in trial.query} == {query}
        assert len(trial.query) == len(trial.gallery) == 12


def test_training_images_cannot_be_searched(root):
    dataset = SYSUMM02(root)
    with pytest.raises(VIReIDError, match="no identities to search"):
        dataset.protocols(dataset.samples("train"), "train")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train.txt", " 2\n", " 4\n", "camera 4, but the cameras are 1"),
        ("train.txt", " 2\n", " two\n", r"train\.txt has 'two' where a camera's number belongs"),
        ("test_rgb.txt", "c1_0001.jpg 1 1", "c1_0001.jpg x 1", r"test_rgb\.txt has 'x' where an identity's"),
        ("test_rgb.txt", "c1_0001.jpg 1 1", "c1_0001.jpg 1 3", "not a camera of visible images"),
        ("test_ir.txt", "c2_0001.jpg 1 2", "c2_0001.jpg", r"line 1 of .*test_ir\.txt"),
    ],
)
def test_broken_lists_are_named(root, name, old, new, message):
    edit(root / name, old, new)
    with pytest.raises(VIReIDError, match=message):
        SYSUMM02(root)


def test_missing_files_are_named(root):
    (root / "test/ir/0001/c2_0001.jpg").unlink()
    with pytest.raises(VIReIDError, match=r"1 file listed in test_rgb\.txt and test_ir\.txt .*c2_0001\.jpg"):
        SYSUMM02(root).samples("test")
