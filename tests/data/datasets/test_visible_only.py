"""Market-1501 and MSMT17: what is left out, what may be absent, and bad input."""

from __future__ import annotations

import shutil

import pytest
from layout_files import edit, write, write_plan

from vireid_lightning.data import MSMT17, Market1501
from vireid_lightning.data.synthetic.layouts import plan_market1501, plan_msmt17
from vireid_lightning.errors import VIReIDError


@pytest.fixture
def market(tmp_path):
    return write_plan(plan_market1501(train=3, test=2, images_per_camera=1, distractors=3), tmp_path)


@pytest.fixture
def msmt(tmp_path):
    return write_plan(plan_msmt17(train=3, test=2, images_per_identity=9), tmp_path)


def test_market_leaves_out_bad_detections_and_marks_distractors(market):
    samples = Market1501(market).samples("test")
    assert not any("/-1_" in sample.path for sample in samples)
    distractors = [sample for sample in samples if "/0000_" in sample.path]
    assert len(distractors) == 3
    assert {sample.identity for sample in distractors} == {-1}


def test_market_takes_the_files_of_a_name_ending_in_jpg_jpg(market):
    write(market / "bounding_box_train/0100_c6s1_000451_03.jpg.jpg", b"an image")
    assert 100 in Market1501(market).identities("train")


def test_the_test_part_of_a_source_may_be_absent(market, msmt):
    for folder in ("query", "bounding_box_test", "test"):
        shutil.rmtree(market / folder)
    for name in ("list_query.txt", "list_gallery.txt"):
        (msmt / name).unlink()
    for dataset in (Market1501(market), MSMT17(msmt)):
        assert dataset.samples("test") == dataset.identities("test") == []
        assert len(dataset.identities("train")) == 3
        assert len(dataset.fingerprint()) == 12


def test_market_names_what_it_lacks(market):
    write(market / "bounding_box_train/somebody.jpg", b"an image")
    with pytest.raises(VIReIDError, match=r"somebody\.jpg is not named like"):
        Market1501(market).samples("train")
    shutil.rmtree(market / "bounding_box_train")
    with pytest.raises(VIReIDError, match="bounding_box_train is missing"):
        Market1501(market)
    (market / "bounding_box_train").mkdir()
    with pytest.raises(VIReIDError, match="holds no images"):
        Market1501(market).samples("train")


def test_msmt_trains_on_both_training_lists(msmt):
    dataset = MSMT17(msmt)
    lines = sum(len((msmt / f"list_{part}.txt").read_text().splitlines()) for part in ("train", "val"))
    assert len(dataset.samples("train")) == lines == 27
    assert dataset.identities("test") == [3, 4]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".jpg 0\n", ".jpg zero\n", "has 'zero' where an identity's number"),
        ("0000_001_02_0303morning_0001_0.jpg", "0000.jpg", r"lists 0000/0000\.jpg, which is not named like"),
        ("0000_001_02_", "0000_001_two_", "has 'two' where a camera's number"),
    ],
)
def test_msmt_names_a_broken_line(msmt, old, new, message):
    edit(msmt / "list_train.txt", old, new)
    with pytest.raises(VIReIDError, match=message):
        MSMT17(msmt)


def test_msmt_names_missing_files(msmt):
    (msmt / "train/0001/0001_003_04_0303morning_0001_0.jpg").unlink()
    with pytest.raises(VIReIDError, match=r"1 file listed in list_train\.txt and list_val\.txt .*0001_003_04"):
        MSMT17(msmt).samples("train")
