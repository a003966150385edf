from __future__ import annotations

import pytest

from vireid_lightning.deployment.image_lists import list_images, parse_modality
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample


@pytest.fixture
def folder(tmp_path):
    for name in ("a/2.png", "a/1.JPG", "a/deep/3.png", "a/notes.txt", "b/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_folders_and_patterns_are_listed_once_and_in_order(folder):
    root, samples = list_images([folder / "b" / "4.png", folder / "a", str(folder / "**" / "*.png")], "infrared")
    assert root == folder
    assert [sample.path for sample in samples] == ["b/4.png", "a/1.JPG", "a/2.png", "a/deep/3.png"]
    assert {(sample.identity, sample.modality, sample.camera) for sample in samples} == {(-1, 1, -1)}


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(folder):
    (folder / "b" / "[1].png").touch()
    _, samples = list_images([folder / "b" / "[1].png"], 0)
    assert [sample.path for sample in samples] == ["[1].png"]


def test_a_csv_file_needs_no_identities_and_says_each_modality(folder):
    (folder / "list.csv").write_text("path;modality;camera\na/1.JPG;thermal;3\na/2.png;rgb;\nb/4.png;;1\n")
    root, samples = list_images([folder / "list.csv"], "visible")
    assert root == folder
    assert samples == [Sample("a/1.JPG", -1, 1, 3), Sample("a/2.png", -1, 0, -1), Sample("b/4.png", -1, 0, 1)]


def test_a_csv_file_may_have_identities_and_other_columns(folder):
    (folder / "list.csv").write_text("split,identity,path\nval,7,a/1.JPG\nval,8,a/2.png\n")
    _, samples = list_images([folder / "list.csv"], "ir")
    assert [(sample.identity, sample.modality) for sample in samples] == [(7, 1), (8, 1)]


def test_a_missing_file_is_left_to_who_reads_it(folder):
    _, samples = list_images([folder / "none.png"], 1)
    assert [sample.path for sample in samples] == ["none.png"]


@pytest.mark.parametrize(
    ("given", "modality", "message"),
    [
        (["a"], None, "The modality of .*a is not given"),
        (["a"], "uv", "The modality 'uv' is unknown; give one of visible, rgb"),
        (["a"], "infrarde", "Did you mean 'infrared'"),
        (["z*"], 0, "No file fits the pattern"),
        (["empty"], 0, "holds no image"),
        (["none.csv"], None, "The modality of .*none.csv is not given"),
        (["list.csv"], None, "line 2 of .*list.csv has no modality"),
        (["word.csv"], None, "line 2 of .*word.csv.*'x-ray' is unknown"),
        (["number.csv"], 0, "line 2 of .*number.csv has 'c1' where a whole number"),
        (["header.csv"], 0, "header but no rows"),
        (["other.csv"], 0, "lacks path"),
    ],
)
def test_what_cannot_be_listed_is_told_in_a_sentence(folder, given, modality, message):
    (folder / "empty").mkdir()
    (folder / "list.csv").write_text("path\na/1.JPG\n")
    (folder / "word.csv").write_text("path,modality\na/1.JPG,x-ray\n")
    (folder / "number.csv").write_text("path,camera\na/1.JPG,c1\n")
    (folder / "header.csv").write_text("path,camera\n")
    (folder / "other.csv").write_text("file,camera\na/1.JPG,1\n")
    with pytest.raises(VIReIDError, match=message):
        list_images([folder / name for name in given], modality)


def test_no_image_at_all():
    with pytest.raises(VIReIDError, match="No image is given"):
        list_images([], 0)


def test_numbers_are_modalities_too():
    assert [parse_modality(word) for word in (0, 1, "IR", " rgb ")] == [0, 1, 1, 0]
