"""``vireid check-dataset``: what it counts, what it finds wrong, and how it exits."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
import yaml
from layout_files import edit, write, write_plan

from vireid_lightning.cli import vireid
from vireid_lightning.data import LLCM, SYSUMM01, Market1501, PublishedSplit
from vireid_lightning.data.synthetic.layouts import (
    plan_llcm,
    plan_manifest,
    plan_market1501,
    plan_msmt17,
    plan_regdb,
    plan_regdb_like,
    plan_sysu_mm01,
    plan_sysu_mm02,
)

SMALL = {
    "SYSUMM01": plan_sysu_mm01(train=2, val=1, test=2, images_per_camera=2),
    "RegDB": plan_regdb(identities=4, images_per_modality=2),
    "LLCM": plan_llcm(train=2, test=2, images_per_camera=1),
    "SYSUMM02": plan_sysu_mm02(train=2, test=2, images_per_camera=2),
    "Market1501": plan_market1501(train=2, test=2, images_per_camera=1),
    "MSMT17": plan_msmt17(train=2, test=2, images_per_identity=4),
    "Manifest": plan_manifest(train=2, val=0, test=2, images_per_camera=2),
}


@pytest.fixture
def check(capsys):
    """Run the tool; return its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            vireid(["check-dataset", *map(str, arguments)])
            code = 0
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, " ".join(output.out.split()), output.err

    return run


@pytest.fixture
def report(check):
    def run(*arguments: object) -> tuple[int, dict]:
        code, output, _ = check(*arguments, "--json")
        return code, json.loads(output)

    return run


def problems(report: dict) -> str:
    return " | ".join(fault["problem"] for fault in report["faults"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_stand_in_has_no_faults(tmp_path, report, name, deep):
    root = write_plan(SMALL[name], tmp_path)
    code, found = report(name, root / "manifest.csv" if name == "Manifest" else root, *(["--deep"] if deep else []))
    assert (code, found["faults"]) == (0, [])
    assert len(found["fingerprint"]) == 12
    images = sum(count["found"] for count in found["counts"] if count["what"] != "identities" and count["camera"])
    junk = sum(image.path.startswith("bounding_box_test/-1") for image in SMALL[name].images)
    assert images == len(SMALL[name].images) - junk
    assert found["decoded"] == (images if deep else 0)
    assert bool(found["notes"]) == (name != "Manifest")  # a stand-in is said to be one


def test_the_table_and_the_exit_code(tmp_path, check):
    root = write_plan(SMALL["SYSUMM01"], tmp_path)
    code, output, _ = check("SYSUMM01", root)
    assert code == 0
    assert "SYSU-MM01" in output
    assert "No faults." in output
    (root / "cam3/0004/0001.jpg").unlink()
    code, output, _ = check("SYSUMM01", root)
    assert code == 1
    assert "test │ infrared │ 3 │ 4 │ 3" in output
    assert "Faults: 2." in output
    assert "To do:" in output


@pytest.mark.slow
def test_the_published_counts_are_those_of_the_real_index_files(tmp_path, shared_data, report):
    """RegDB's real structure has the published identities, so each count is held against the published one."""
    root = write_plan(plan_regdb_like(shared_data / "regdb" / "idx"), tmp_path)
    code, found = report("RegDB", root, "--trial", 3)
    assert (code, found["notes"], found["faults"]) == (0, [], [])
    assert {(count["expected"], count["found"]) for count in found["counts"]} == {(206, 206), (2060, 2060)}


def test_every_sysu_mm01_count_has_its_published_number(shared_data):
    from collections import Counter

    dataset = SYSUMM01(shared_data / "sysu_mm01", train="train", validation="val")
    for split, published in SYSUMM01.published.items():
        listed = dataset.listed(split)
        assert Counter((sample.modality, sample.camera) for sample in listed) == published.images
        assert len({sample.identity for sample in listed}) == published.identities


def test_an_image_fewer_than_published_is_a_fault(tmp_path, report, monkeypatch):
    """A folder with the published identities is the real dataset; no index file lists LLCM's test images."""
    sizes = {
        "train": PublishedSplit(2, {(0, None): 18, (1, None): 16}),
        "test": PublishedSplit(2, {(0, None): 18, (1, None): 16}),
    }
    monkeypatch.setattr(LLCM, "published", sizes)
    root = write_plan(SMALL["LLCM"], tmp_path)
    assert report("LLCM", root)[0] == 0
    next((root / "test_nir/cam2/0003").iterdir()).unlink()
    code, found = report("LLCM", root)
    assert code == 1
    assert problems(found) == "The split test has 15 infrared images where 16 are expected."


def test_a_lost_identity_is_a_fault_where_file_names_alone_tell_them(tmp_path, report, monkeypatch):
    root = write_plan(SMALL["Market1501"], tmp_path)
    _, found = report("Market1501", root)
    sizes = {
        split: PublishedSplit(
            next(row["found"] for row in found["counts"] if (row["split"], row["what"]) == (split, "identities")),
            {(0, None): sum(r["found"] for r in found["counts"] if (r["split"], r["what"]) == (split, "visible"))},
        )
        for split in ("train", "test")
    }
    monkeypatch.setattr(Market1501, "published", sizes)
    assert report("Market1501", root)[0] == 0
    lost = min(path.name[:4] for path in (root / "bounding_box_train").iterdir())
    for path in (root / "bounding_box_train").glob(f"{lost}_*"):
        path.unlink()
    code, found = report("Market1501", root)
    assert code == 1
    before = sizes["train"].identities
    assert f"The split train has {before - 1} identities where {before} are expected." in problems(found)


def test_bad_files_are_found(tmp_path, report):
    root = write_plan(SMALL["SYSUMM01"], tmp_path)
    write(root / "cam1/0001/0001.jpg", b"")
    content = (root / "cam2/0001/0001.jpg").read_bytes()
    write(root / "cam2/0001/0001.jpg", content[: len(content) // 2])
    write(root / "cam4/0001/0001.jpg", b"no image")
    code, found = report("SYSUMM01", root)
    assert code == 1
    bad = "2: cam1/0001/0001.jpg, cam4/0001/0001.jpg."
    assert problems(found).startswith(
        f"Image files that cannot be used, {bad} The image file {root}/cam1/0001/0001.jpg "
    )
    code, found = report("SYSUMM01", root, "--deep")
    assert code == 1
    assert "3: cam1/0001/0001.jpg, cam2/0001/0001.jpg, cam4/0001/0001.jpg." in problems(found)


def test_images_that_the_matrices_do_not_list(tmp_path, report):
    root = write_plan(SMALL["SYSUMM01"], tmp_path)
    write(root / "cam1/0001/0009.jpg", b"an image")
    code, found = report("SYSUMM01", root)
    assert code == 1
    assert "Unknown train images that exp/rand_perm_cam.mat does not list, 1: cam1/0001/0009.jpg." in problems(found)


def test_identities_of_one_modality(tmp_path, report):
    root = write_plan(SMALL["Manifest"], tmp_path)
    text = (root / "manifest.csv").read_text()
    lines = [line for line in text.splitlines() if not (",2," in line and "infrared" in line)]
    write(root / "manifest.csv", "\n".join(lines))
    code, found = report("Manifest", root / "manifest.csv")
    assert code == 1
    assert problems(found) == "Identities of train with visible images only, 1: 2."


def test_identities_trained_on_and_searched_for_are_a_fault(tmp_path, check, report):
    root = write_plan(SMALL["Manifest"], tmp_path)
    text = (root / "manifest.csv").read_text()
    write(root / "manifest.csv", text.replace(",3,visible", ",2,visible").replace(",3,infrared", ",2,infrared"))
    code, found = report("Manifest", root / "manifest.csv")
    assert code == 1
    assert problems(found) == "Identities both in train and in what is searched, 1: 2."
    assert check("Manifest", root / "manifest.csv")[2] == ""


def test_a_manifest_of_the_other_direction(tmp_path, check):
    root = write_plan(SMALL["Manifest"], tmp_path)
    lines = (root / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines if not line.endswith(("infrared,3,query", "infrared,4,query"))]
    write(root / "manifest.csv", "\n".join(kept))
    code, _, error = check("Manifest", root / "manifest.csv")
    assert code == 2
    assert "--direction visible-to-infrared" in error
    assert check("Manifest", root / "manifest.csv", "--direction", "visible-to-infrared")[0] == 0


def test_missing_files_and_broken_matrices_are_faults_of_the_dataset(tmp_path, report):
    regdb = write_plan(SMALL["RegDB"], tmp_path / "regdb")
    next((regdb / "Visible/1").iterdir()).unlink()
    code, found = report("RegDB", regdb)
    assert (code, found["fingerprint"]) == (1, None)
    assert problems(found).count("1 file listed in") == 1
    # The rest of that split is counted and looked at all the same.
    assert {row["split"] for row in found["counts"]} == {"train", "test"}
    write(next((regdb / "Visible/1").iterdir()), b"")
    assert "Image files that cannot be used, 1: Visible/1/" in problems(report("RegDB", regdb)[1])
    sysu = write_plan(SMALL["SYSUMM01"], tmp_path / "sysu")
    write(sysu / "exp/rand_perm_cam.mat", b"")
    code, found = report("SYSUMM01", sysu)
    assert code == 1
    assert problems(found).count("not a readable MATLAB file") == 1
    assert found["faults"][0]["remedy"] == "Copy it again."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SYSUMM1", "."), "Did you mean 'SYSUMM01'?"),
        (("LLCM", "nowhere"), "nowhere does not exist"),
        (("LLCM", ".", "--trial", "2"), "LLCM takes no trial; leave out --trial"),
        (("Manifest", "."), "Give the path of a CSV file"),
    ],
)
def test_bad_input_exits_with_2(tmp_path, monkeypatch, check, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = check(*arguments)
    assert code == 2
    assert message in error


def test_a_broken_index_file_exits_with_2(tmp_path, check):
    root = write_plan(SMALL["SYSUMM02"], tmp_path)
    edit(root / "train.txt", "cam1", "cam1 x y")
    write(root / "test_ir.txt", "")
    code, _, error = check("SYSUMM02", root)
    assert code == 2
    assert "test_ir.txt is empty" in error


# What files hold.


@pytest.fixture
def campus(tmp_path):
    """A manifest without faults, and its root."""
    return write_plan(SMALL["Manifest"], tmp_path)


def pick(root, *words: str) -> list[str]:
    """Return the paths of the rows with all of these words."""
    lines = (root / "manifest.csv").read_text().splitlines()[1:]
    return [line.split(",")[0] for line in lines if all(f",{word}" in line for word in words)]


def replace(root, path: str, content: bytes) -> None:
    (root / path).write_bytes(content)


def test_bit_depth_is_reported(campus, check, report):
    manifest = campus / "manifest.csv"
    code, found = report("Manifest", manifest)
    images = {modality: len(pick(campus, modality)) for modality in ("visible", "infrared")}
    assert (code, found["bits"]) == (0, {modality: {"8": number} for modality, number in images.items()})
    counts = np.linspace(7300, 8240, 16 * 8).reshape(16, 8).astype(np.uint16)
    first, *others = pick(campus, "infrared")
    replace(campus, first, cv2.imencode(".png", counts)[1].tobytes())
    for arguments in ((), ("--deep",)):
        code, found = report("Manifest", manifest, *arguments)
        assert code == 1
        expected = f"The infrared images differ in bits, with their numbers: 8 ({len(others)}), 16 (1)."
        assert problems(found) == expected
    for number, path in enumerate(others, start=1):
        replace(campus, path, cv2.imencode(".tif", counts + number)[1].tobytes())
    code, output, _ = check("Manifest", manifest, "--deep")
    assert code == 0
    assert f"Bits of infrared values: 16 ({len(others) + 1} images)." in output
    assert (
        f"{len(others) + 1} infrared images have more than 8 bits: to train and test on them, set data.inten" in output
    )


def test_constant_images_are_found_by_decoding(campus, report):
    path = pick(campus, "infrared")[0]
    replace(campus, path, cv2.imencode(".bmp", np.full((16, 8, 3), (10, 20, 30), dtype=np.uint8))[1].tobytes())
    assert report("Manifest", campus / "manifest.csv")[0] == 0
    code, found = report("Manifest", campus / "manifest.csv", "--deep")
    assert (code, problems(found)) == (1, f"Images of a single colour, 1: {path}.")


def test_files_of_the_same_bytes_are_found_by_reading(campus, report):
    train, test = pick(campus, "2,infrared", "train")[:2], pick(campus, "3,infrared")[0]
    other = pick(campus, "1,infrared")[0]
    same = (campus / train[0]).read_bytes()
    replace(campus, train[1], same)
    code, found = report("Manifest", campus / "manifest.csv", "--deep")
    assert code == 0
    assert found["notes"] == [f"Images of the same bytes within an identity and split, 1: {' = '.join(train)}."]
    replace(campus, other, same)
    code, found = report("Manifest", campus / "manifest.csv", "--deep")
    paths = " = ".join(sorted([*train, other]))
    assert (code, problems(found)) == (1, f"Images of the same bytes in different identities, 1: {paths}.")
    replace(campus, test, same)
    code, found = report("Manifest", campus / "manifest.csv", "--deep")
    assert (code, "Images of the same bytes in different splits, 1:" in problems(found)) == (1, True)
    assert report("Manifest", campus / "manifest.csv")[0] == 0


def test_one_camera_number_for_both_sensors(campus, report):
    manifest = campus / "manifest.csv"
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    cameras = {modality: {row[3] for row in rows if row[2] == modality} for modality in ("visible", "infrared")}
    assert not cameras["visible"] & cameras["infrared"]
    write(manifest, "\n".join([",".join(rows[0]), *(",".join([*row[:3], "1", row[4]]) for row in rows[1:])]))
    code, found = report("Manifest", manifest)
    assert code == 1
    assert "skipped by the rule same-camera, which goes by the camera number." in problems(found)
    shared = min(cameras["visible"])
    given = sorted(cameras["infrared"])[0]
    changed = [[*row[:3], shared if row[3] == given else row[3], row[4]] for row in rows]
    write(manifest, "\n".join(",".join(row) for row in changed))
    code, found = report("Manifest", manifest)
    assert (code, problems(found)) == (1, f"Camera numbers of test that both sensors have, 1: {shared}.")


def test_the_fingerprint_is_that_of_the_configs_split(tmp_path, report):
    root = write_plan(SMALL["SYSUMM01"], tmp_path)
    _, found = report("SYSUMM01", root)
    assert found["fingerprint"] == SYSUMM01(root).fingerprint()
    assert found["fingerprint"] != SYSUMM01(root, train="train", validation="val").fingerprint()


def test_a_config_names_the_dataset_and_its_split(tmp_path, check):
    """The fingerprint is that of the config's split, which results and checkpoints of its runs carry."""
    root = write_plan(SMALL["SYSUMM01"], tmp_path / "sysu")
    split = {"root": str(root), "train": "train", "validation": "val"}
    write(tmp_path / "a.yaml", yaml.safe_dump({"data": {"dataset": {"class_path": "SYSUMM01", "init_args": split}}}))
    write(tmp_path / "b.yaml", yaml.safe_dump({"data": {"dataset": {"init_args": {"train": "train+val"}}}}))
    write(tmp_path / "c.yaml", yaml.safe_dump({"data": {"dataset": {"init_args": {"validation": "test"}}}}))
    configs = [f"--config={tmp_path / name}.yaml" for name in "abc"]

    def fingerprint(*arguments):
        code, out, error = check("--json", *arguments)
        return json.loads(out)["fingerprint"] if code == 0 else error

    assert fingerprint(configs[0]) == SYSUMM01(**split).fingerprint()
    assert fingerprint(*configs) == fingerprint("SYSUMM01", root) == SYSUMM01(root).fingerprint()
    assert fingerprint("SYSUMM01", root, "--set", "train=train") == SYSUMM01(**split).fingerprint()
    assert fingerprint(configs[0], "--set", "train=train+val", "--set", "validation=test") == fingerprint(*configs)
    assert "would validate on identities that are trained on" in fingerprint(*configs[:2])
    assert "train is both; give one of train, train+val" in fingerprint(configs[0], "--set", "train=both").replace(
        "'", ""
    )
    assert "SYSUMM01 takes no trian; leave out trian. Did you mean 'train'?" in fingerprint(
        configs[0], "--set", "trian=train"
    )
    assert "--set is 'train'; give NAME=VALUE" in fingerprint(configs[0], "--set", "train")
    assert "both by --config and by its class" in fingerprint("SYSUMM01", root, configs[0])
    assert "No dataset is named" in fingerprint("SYSUMM01")
    assert "name no data.dataset" in fingerprint(configs[1])


def test_arguments_of_the_class_reach_the_tools(campus, check):
    text = (campus / "manifest.csv").read_text()
    first = text.splitlines()[1].split(",")[0]
    (campus / first).rename(campus / "入口.png")
    write(campus / "gbk.csv", text.replace(first, "入口.png").encode("gbk"))
    code, _, error = check("Manifest", campus / "gbk.csv")
    assert (code, "probably gbk" in error) == (2, True)
    assert check("Manifest", campus / "gbk.csv", "--set", "encoding=gbk")[0] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of POSIX systems")
def test_pipes_and_devices_are_bad_files_and_nothing_waits_for_them(campus, report):
    pipe, folder = pick(campus, "infrared")[:2]
    for path in (pipe, folder):
        (campus / path).unlink()
    os.mkfifo(campus / pipe)
    (campus / folder).mkdir()
    for arguments in ((), ("--deep",)):
        code, found = report("Manifest", campus / "manifest.csv", *arguments)
        assert (code, f"2: {', '.join(sorted((pipe, folder)))}." in problems(found)) == (1, True)


def test_faults_have_the_names_of_identities(campus, report):
    text = (campus / "manifest.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    named = [[row[0], "Bo" if row[1] == "2" else row[1], *row[2:]] for row in rows]
    write(campus / "manifest.csv", "\n".join(",".join(r) for r in named if not (r[1] == "Bo" and r[2] == "infrared")))
    assert (
        problems(report("Manifest", campus / "manifest.csv")[1])
        == "Identities of train with visible images only, 1: Bo."
    )


def test_a_manifest_may_be_allowed_to_name_files_anywhere(campus, check):
    text = (campus / "manifest.csv").read_text()
    first = text.splitlines()[1].split(",")[0]
    write(campus / "lists/manifest.csv", text.replace("\n", f"\n{campus}/").removesuffix(f"{campus}/"))
    code, _, error = check("Manifest", campus / "lists/manifest.csv")
    assert code == 2
    assert f"line 2 of {campus / 'lists/manifest.csv'} has the path {campus / first}, which leads out of" in error
    assert check("Manifest", campus / "lists/manifest.csv", "--allow-outside")[0] == 0
    code, _, error = check("LLCM", campus, "--allow-outside")
    assert (code, "LLCM takes no allow_outside" in error) == (2, True)
