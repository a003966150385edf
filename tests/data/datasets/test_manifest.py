"""Manifest: which rows make which split and protocol, and bad input."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from layout_files import write

from vireid_lightning.data import Manifest
from vireid_lightning.errors import VIReIDError

HEADER = "path,identity,modality,camera,split"
ROWS = (
    "a.jpg,1,visible,1,train",
    "b.jpg,1,infrared,2,train",
    "c.jpg,2,rgb,1,train",
    "d.jpg,2,thermal,2,train",
    "e.jpg,5,infrared,2,query",
    "f.jpg,6,ir,2,query",
    "g.jpg,5,visible,1,gallery",
    "h.jpg,6,visible,1,gallery",
)


@pytest.fixture
def make(tmp_path):
    """Write a manifest of the given rows, and its images."""

    def write_manifest(*rows: str, header: str = HEADER) -> Manifest:
        for row in rows:
            name = row.split(",")[0]
            if name and not {*'/\\"'} & {*name}:
                write(tmp_path / name, b"an image")
        return write(tmp_path / "manifest.csv", "\n".join([header, *rows]) + "\n")

    return write_manifest


def test_the_example_to_copy(tmp_path):
    example = Path(__file__).resolve().parents[3] / "experiments" / "manifest_example" / "manifest.csv"
    content = example.read_text(encoding="utf-8")
    path = write(tmp_path / "manifest.csv", content)
    for line in content.splitlines()[1:]:
        write(tmp_path / line.split(",")[0], b"an image")
    dataset = Manifest(path)
    assert (dataset.identities("train"), dataset.identities("test")) == ([1, 2], [3, 4])
    assert {sample.modality for sample in dataset.samples("train")} == {0, 1}
    (protocol,) = dataset.protocols(dataset.samples("test"))
    assert (protocol.name, len(protocol.trials[0].query), len(protocol.trials[0].gallery)) == (
        "infrared-to-visible",
        2,
        2,
    )


def test_one_direction_where_only_that_is_possible(make):
    dataset = Manifest(make(*ROWS))
    samples = dataset.samples("test")
    assert [sample.modality for sample in dataset.samples("train")] == [0, 1, 0, 1]
    (protocol,) = dataset.protocols(samples)
    assert (protocol.name, protocol.removal, protocol.cmc) == ("infrared-to-visible", "same-camera", "image")
    assert [samples[position].path for position in protocol.trials[0].query] == ["e.jpg", "f.jpg"]
    assert [samples[position].path for position in protocol.trials[0].gallery] == ["g.jpg", "h.jpg"]
    assert dataset.labelled


def test_both_directions_where_both_modalities_are_in_both_sets(make):
    dataset = Manifest(make(*ROWS, "i.jpg,5,visible,,query", "j.jpg,5,infrared,3,gallery"))
    names = [protocol.name for protocol in dataset.protocols(dataset.samples("test"))]
    assert names == ["visible-to-infrared", "infrared-to-visible"]


def test_the_other_direction_needs_someone_to_be_found(make):
    dataset = Manifest(make(*ROWS, "i.jpg,77,visible,,query", "j.jpg,78,infrared,3,gallery"))
    (protocol,) = dataset.protocols(dataset.samples("test"))
    assert protocol.name == dataset.default_protocol == "infrared-to-visible"


def test_the_direction_may_be_chosen(make):
    path = make(*ROWS[:4], "e.jpg,5,visible,1,query", "g.jpg,5,infrared,2,gallery")
    dataset = Manifest(path, direction="visible-to-infrared")
    assert dataset.default_protocol == "visible-to-infrared"
    assert [protocol.name for protocol in dataset.protocols(dataset.samples("test"))] == ["visible-to-infrared"]
    with pytest.raises(VIReIDError, match="give one of"):
        Manifest(path, direction="both")


def test_validation_uses_val_rows_where_there_are_some(make):
    without = Manifest(make(*ROWS))
    assert without.samples("val") == without.samples("test")
    dataset = Manifest(make(*ROWS, "v.jpg,8,visible,1,val", "w.jpg,8,infrared,1,val", "x.jpg,8,infrared,,val"))
    val = dataset.samples("val")
    assert [sample.path for sample in val] == ["v.jpg", "w.jpg", "x.jpg"]
    query = {p.name: [val[q].path for q in p.trials[0].query] for p in dataset.protocols(val, "val")}
    assert query == {"visible-to-infrared": ["v.jpg"], "infrared-to-visible": ["w.jpg", "x.jpg"]}


def test_columns_in_any_order_with_further_ones_and_spaces(make, tmp_path):
    expected = Manifest(make(*ROWS)).samples("train")
    rows = [",".join([*reversed(row.split(",")), "a note"]) for row in ROWS]
    write(tmp_path / "other.csv", "\ufeffsplit, camera, modality, identity, path, note\r\n" + "\r\n".join(rows))
    assert Manifest(tmp_path / "other.csv").samples("train") == expected


def test_unlabelled_training_rows(make):
    dataset = Manifest(make("a.jpg,,visible,1,train", "b.jpg,,infrared,2,train", *ROWS[4:]))
    assert not dataset.labelled
    assert dataset.identities("train") == []
    assert {sample.identity for sample in dataset.samples("train")} == {-1}


def test_training_rows_alone(make):
    dataset = Manifest(make(*ROWS[:4]))
    assert dataset.identities("train") == [1, 2]
    with pytest.raises(VIReIDError, match="no infrared query"):
        dataset.protocols(dataset.samples("test"))


def test_an_identity_in_both_train_and_gallery_is_warned_of_by_name(make):
    with pytest.warns(UserWarning, match=r"1 identities of .*manifest\.csv are both in train .*: 2\."):
        Manifest(make(*ROWS, "i.jpg,2,visible,1,gallery"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Manifest(make(*ROWS))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((*ROWS, "i.jpg,1,infra,1,train"), r"line 10 of .*manifest\.csv has the unknown modality 'infra'; give one of"),
        ((*ROWS, "i.jpg,1,infrard,1,train"), "Did you mean 'infrared'"),
        ((*ROWS, "i.jpg,1,visible,1,test"), "unknown split 'test'; give one of train, val, query, gallery"),
        ((*ROWS, "a.jpg,1,visible,1,train"), r"line 10 of .* lists a\.jpg, which line 2 lists already"),
        ((*ROWS, "./a.jpg,1,visible,1,train"), r"line 10 of .* lists a\.jpg, which line 2 lists already"),
        ((*ROWS, "b/../a.jpg,1,visible,1,train"), r"line 10 of .* lists a\.jpg, which line 2 lists already"),
        ((*ROWS, "i.jpg,1.5,visible,1,train"), r"line 10 of .* has '1\.5' where a whole number or a name \(identity\)"),
        ((*ROWS, f"i.jpg,{10**18},visible,1,train"), "line 10 of .* of at most 18 digits"),
        ((*ROWS, "i.jpg,1,visible,-1,train"), "has the camera -1; give a number from 0"),
        ((*ROWS, "/etc/passwd,1,visible,1,train"), r"line 10 of .* has the path /etc/passwd, which leads out of"),
        ((*ROWS, "../i.jpg,1,visible,1,train"), r"path \.\./i\.jpg, which leads out of .* set allow_outside: true"),
        ((*ROWS, "a/../../i.jpg,1,visible,1,train"), r"line 10 of .* leads out of the dataset's folder"),
        ((*ROWS, r"C:\i.jpg,1,visible,1,train"), r"has the path C:/i\.jpg, which leads out of"),
        ((*ROWS, '"i.jpg,1,visible,1,train'), "line 10 of .* cannot be read as a row of a CSV file .* quotation marks"),
        ((*ROWS, '"i".jpg,1,visible,1,train'), "line 10 of .* cannot be read as a row of a CSV file"),
        ((*ROWS, "i.jpg,-3,visible,1,train"), "has the identity -3"),
        ((*ROWS, "i.jpg,1,visible,one,train"), r"has 'one' where a whole number \(camera\)"),
        ((*ROWS, "i.jpg,,visible,1,train"), "1 of the 5 train rows .* no identity"),
        ((*ROWS, "i.jpg,,visible,1,gallery"), "line 10 of .* has no identity"),
        ((*ROWS, ",1,visible,1,train"), "line 10 of .* has no path"),
        ((*ROWS, "i.jpg,1"), "unknown modality ''"),
        (ROWS[:4] + ROWS[6:], "no infrared query row"),
        (ROWS[:6], "no visible gallery row"),
        ((*ROWS[:4], "q.jpg,5,visible,1,query", "r.jpg,5,infrared,1,gallery"), "set direction='visible-to-infrared'"),
        ((), "has a header but no rows"),
    ],
)
def test_bad_rows_are_named(make, rows, message):
    with pytest.raises(VIReIDError, match=message):
        Manifest(make(*rows))


def test_bad_files_are_named(make, tmp_path):
    with pytest.raises(VIReIDError, match="lacks camera, split"):
        Manifest(make("a.jpg,1,visible", header="path,identity,modality"))
    write(tmp_path / "manifest.csv", "")
    with pytest.raises(VIReIDError, match=r"manifest\.csv is empty"):
        Manifest(tmp_path / "manifest.csv")
    with pytest.raises(VIReIDError, match=r"there is no file .*Give the path of a CSV file"):
        Manifest(tmp_path)


def test_missing_images_are_listed(make, tmp_path):
    dataset = Manifest(make(*ROWS))
    (tmp_path / "e.jpg").unlink()
    (tmp_path / "h.jpg").unlink()
    with pytest.raises(VIReIDError, match=r"2 files listed in manifest\.csv are missing .*: e\.jpg, h\.jpg"):
        dataset.samples("test")


def test_a_gallery_without_any_right_image_is_refused(make):
    dataset = Manifest(make(*ROWS[:5], "g.jpg,7,visible,1,gallery"))
    with pytest.raises(VIReIDError, match="none shows the identity of any query"):
        dataset.protocols(dataset.samples("test"))


def test_the_same_camera_removes_the_only_right_image(make):
    same = Manifest(make(*ROWS[:5], "g.jpg,5,visible,2,gallery"))
    with pytest.raises(
        VIReIDError, match=r"no query a true match: .* skipped by the rule same-camera.* Give each sensor"
    ):
        same.protocols(same.samples("test"))
    unknown = Manifest(make(*ROWS[:4], "e.jpg,5,infrared,,query", "g.jpg,5,visible,,gallery"))
    assert len(unknown.protocols(unknown.samples("test"))) == 1


# Paths.


def test_links_and_paths_that_leave_the_folder_are_refused_unless_allowed(make, tmp_path):
    outside = write(tmp_path.parent / f"{tmp_path.name}-outside" / "b.jpg", b"an image").parent
    path = make(*ROWS)
    assert Manifest(path).samples("train")
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "a.jpg").symlink_to("c.jpg")  # a link within the folder
    assert Manifest(path).samples("train")
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "b.jpg").symlink_to(outside / "b.jpg")
    with pytest.raises(
        VIReIDError, match=r"1 path of manifest\.csv leads out of .* by a link: b\.jpg\. .*allow_outside"
    ):
        Manifest(path).samples("train")
    assert Manifest(path).samples("test")
    assert Manifest(path, allow_outside=True).samples("train")

    (tmp_path / "far").symlink_to(outside)
    make(*ROWS[:4], "far/b.jpg,5,infrared,2,query", ROWS[6])
    with pytest.raises(VIReIDError, match=r"leads out of .*: far/b\.jpg\."):
        Manifest(path).samples("test")
    assert Manifest(path, allow_outside=True).samples("test")

    write(path, path.read_text().replace("far/b.jpg", str(outside / "b.jpg")))
    with pytest.raises(VIReIDError, match=r"line 6 of .* leads out of the dataset's folder"):
        Manifest(path)
    dataset = Manifest(path, allow_outside=True)
    (query,) = [sample for sample in dataset.samples("test") if sample.modality]
    assert (dataset.root / query.path).read_bytes() == b"an image"


def test_a_link_to_the_folder_itself_is_not_outside(make, tmp_path):
    make(*ROWS)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert Manifest(link / "manifest.csv").samples("train") == Manifest(tmp_path / "manifest.csv").samples("train")


def test_a_nul_byte_in_a_path(make, tmp_path):
    path = make(*ROWS)
    write(path, path.read_text().replace("a.jpg", "a\0.jpg"))
    with pytest.raises(VIReIDError, match=r"line 2 of .*(NUL|a\\x00)"):
        Manifest(path)


# Encodings and delimiters.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_delimiters_that_are_plain_from_the_file(make, tmp_path, encoding, delimiter, end):
    expected = Manifest(make(*ROWS)).samples("train")
    text = end.join([HEADER, *ROWS]).replace("a.jpg", "ä.jpg").replace(",", delimiter) + end
    write(tmp_path / "ä.jpg", b"an image")
    content = ("\ufeff" + text).encode(encoding[:9]) if encoding.endswith("-bom") else text.encode(encoding)
    found = Manifest(write(tmp_path / "other.csv", content)).samples("train")
    assert sorted(sample.path.replace("ä", "a") for sample in found) == [sample.path for sample in expected]


def test_a_semicolon_file_may_have_commas_in_its_paths(make, tmp_path):
    make(*ROWS)
    write(tmp_path / "a,b.jpg", b"an image")
    text = "\n".join([HEADER, *ROWS]).replace(",", ";").replace("a.jpg", "a,b.jpg")
    assert Manifest(write(tmp_path / "other.csv", text)).samples("train")[0].path == "a,b.jpg"
    assert Manifest(write(tmp_path / "other.csv", text.replace("a,b.jpg", '"a,b.jpg"'))).samples("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "\n".join([HEADER, *ROWS]).replace("a.jpg", "入口.jpg").encode("gbk"),
            r"is not in UTF-8, from byte 37 on, but could be in gbk.*Set encoding to .* probably gbk",
        ),
        ("\n".join([HEADER, *ROWS]).replace("a.jpg", "é.jpg").encode("latin-1"), "is not in UTF-8, from byte 37 on"),
        ("\n".join([HEADER, *ROWS]).encode("utf-16-le"), "in UTF-16 or UTF-32 and does not begin with the byte order"),
        ("\n".join([HEADER, *ROWS]).encode("utf-32"), "is not a text file|UTF-32"),
        (b"\xff\xfea", "is not a text file"),
        ("\n".join([HEADER, *ROWS]).replace(",", "|").encode(), r"are separated by '\|'\. Separate them by commas"),
        ("\n".join([HEADER, *ROWS]).replace(",", " ").encode(), "are separated by ' '"),
        (b"name,person\n" + "\n".join(ROWS).encode(), "lacks path, identity, modality, camera, split"),
        (b'"' + b"x" * 200_000, "lacks path"),
    ],
)
def test_encodings_and_delimiters_that_are_refused(tmp_path, content, message):
    with pytest.raises(VIReIDError, match=message) as caught:
        Manifest(write(tmp_path / "manifest.csv", content))
    assert str(tmp_path / "manifest.csv") in str(caught.value)


def test_the_encoding_may_be_given(make, tmp_path):
    make(*ROWS)
    write(tmp_path / "入口.jpg", b"an image")
    path = write(tmp_path / "gbk.csv", "\n".join([HEADER, *ROWS]).replace("a.jpg", "入口.jpg").encode("gbk"))
    assert [sample.path for sample in Manifest(path, encoding="gbk").samples("train")][-1] == "入口.jpg"
    refused = {"utf-8": "is not in utf-8, from byte 37 on", "gkb": "no encoding 'gkb'", "hex": "no encoding 'hex'"}
    for encoding, message in refused.items():
        with pytest.raises(VIReIDError, match=message):
            Manifest(path, encoding=encoding)


def test_drawn_images_are_known_by_their_folder(make, tmp_path):
    """A list of drawn images may lie anywhere."""
    path = make(*ROWS)
    assert not Manifest(path).synthetic
    write(tmp_path / "drawn" / "synthetic.json", "{}")
    write(tmp_path / "drawn" / "images" / "i.jpg", b"an image")
    assert not Manifest(path).synthetic
    (tmp_path / "linked").symlink_to(tmp_path / "drawn" / "images")
    for name in ("drawn/images/i.jpg", "linked/i.jpg"):
        row = f"{name},5,visible,1,gallery"
        assert Manifest(write(path, "\n".join([HEADER, *ROWS, row]))).synthetic


def test_root_is_another_name_of_path(make):
    path = make(*ROWS)
    assert Manifest(root=path).samples("train") == Manifest(path).samples("train")
    assert Manifest("a config's", root=path).path == path
    with pytest.raises(VIReIDError, match=r"no path is given\. Set path to a CSV file"):
        Manifest()


# Names.


def test_identities_may_be_names(make):
    names = {"1": "zoë", "2": "anna", "5": "Bo", "6": "anna lee"}
    rows = [",".join([row.split(",")[0], names[row.split(",")[1]], *row.split(",")[2:]]) for row in ROWS]
    dataset = Manifest(make(*rows))
    assert dataset.identity_names == {0: "Bo", 1: "anna", 2: "anna lee", 3: "zoë"}
    assert dataset.identities("train") == [1, 3]
    by_path = {sample.path: sample.identity for split in ("train", "test") for sample in dataset.samples(split)}
    assert by_path == {"a.jpg": 3, "b.jpg": 3, "c.jpg": 1, "d.jpg": 1, "e.jpg": 0, "g.jpg": 0, "f.jpg": 2, "h.jpg": 2}
    (protocol,) = dataset.protocols(dataset.samples("test"))
    assert len(protocol.trials[0].query) == 2
    assert Manifest(make(*reversed(rows))).identity_names == dataset.identity_names


def test_names_and_numbers_may_be_mixed(make):
    dataset = Manifest(make(*ROWS, "i.jpg,zoe\u0308,visible,1,train", "j.jpg,zo\u00eb,infrared,2,train"))
    assert dataset.identity_names == {7: "zoë"}  # after 6, the largest number; one person however it is written
    assert dataset.identities("train") == [1, 2, 7]
    assert dataset.identities("test") == [5, 6]
    assert Manifest(make(*ROWS)).identity_names == {}


def test_a_number_with_a_point_is_that_number(make):
    dataset = Manifest(make("a.jpg,007,visible,1,train", "b.jpg,7.0,infrared,2,train", "c.jpg,7,visible,1,train"))
    assert (dataset.identities("train"), dataset.identity_names) == ([7], {})


def test_messages_have_the_names(make):
    with pytest.warns(UserWarning, match=r"1 identities of .* are both in train .*: anna\."):
        Manifest(make(*[row.replace(".jpg,2,", ".jpg,anna,") for row in ROWS], "i.jpg,anna,visible,1,gallery"))
