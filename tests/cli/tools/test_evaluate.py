from __future__ import annotations

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
from references.sysu_mm01 import random_embeddings
from references.sysu_mm01 import test_images as list_test_images

from vireid_lightning.cli import vireid
from vireid_lightning.data import SYSUMM01
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import atomic_write
from vireid_lightning.metrics import Embeddings, evaluate, evaluate_file


@pytest.fixture(scope="module")
def root(shared_data, tmp_path_factory):
    """A SYSU-MM01 folder that holds the real exp files and no image."""
    folder = tmp_path_factory.mktemp("sysu")
    shutil.copytree(shared_data / "sysu_mm01" / "exp", folder / "exp")
    return folder


@pytest.fixture(scope="module")
def arrays(root):
    identity, camera, number = list_test_images(root / "exp")
    names = zip(identity.tolist(), camera.tolist(), number.tolist())
    return {
        "embedding": random_embeddings(identity, camera, 16, spread=1.0),
        "identity": identity,
        "camera": camera,
        "modality": np.isin(camera, (3, 6)).astype(np.int64),
        "path": np.array([f"cam{c}/{i:04d}/{n:04d}.jpg" for i, c, n in names]),
    }


@pytest.fixture
def embeddings(arrays, tmp_path):
    np.savez(tmp_path / "embeddings.npz", **arrays)
    return tmp_path / "embeddings.npz"


def call(path, root, *more):
    vireid(["evaluate", str(path), "--dataset", "SYSUMM01", "--root", str(root), *map(str, more)])


@pytest.mark.slow
def test_scores_the_whole_table_of_the_real_protocol_files(embeddings, root, arrays, tmp_path, capsys):
    call(embeddings, root, "--output", tmp_path / "results.json", "--details", tmp_path / "details.npz")
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "results.json").read_text())
    with np.load(tmp_path / "details.npz") as file:
        curves = [file[f"all/single/official/trial_{number}/cmc"] for number in range(1, 11)]
    assert np.mean([curve[19] for curve in curves]) == pytest.approx(content["results"][0]["scores"]["rank20"])
    rows = {row["protocol"]: row for row in content["results"]}
    assert list(rows) == [
        *(f"{mode}/{shot}/official" for mode in ("all", "indoor") for shot in ("single", "multi")),
        "all/single/seeded",
        "indoor/single/seeded",
    ]
    assert content["dataset"] == "SYSU-MM01"
    for name, row in rows.items():
        assert name in printed
        assert f"{row['scores']['mAP']:.2f}" in printed
        assert (row["trials"], row["queries"], row["distance"], row["embedding_size"]) == (10, 3803, "cosine", 16)
    assert rows["all/single/official"]["gallery_images"] == rows["all/single/seeded"]["gallery_images"] == 301
    assert rows["all/multi/official"]["gallery_images"] == 3010
    assert rows["indoor/single/official"]["gallery_images"] == 112


@pytest.mark.slow
def test_python_gives_the_same_as_the_command_line(embeddings, root, tmp_path):
    call(embeddings, root, "--metric", "euclidean", "--output", tmp_path / "results.json")
    table = evaluate_file(embeddings, SYSUMM01(root), distance="euclidean")
    assert json.loads((tmp_path / "results.json").read_text())["results"] == json.loads(
        json.dumps(table.to_dict()["results"])
    )
    assert table["all/single/official"].distance == "euclidean"


def test_does_not_overwrite_unless_told_to(embeddings, root, tmp_path, capsys):
    output = tmp_path / "results.json"
    output.write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        call(embeddings, root, "--output", output)
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def changed(name, change):
    return lambda arrays: arrays | {name: change(arrays[name].copy())}


def with_nan(embedding):
    embedding[12, 3] = np.nan
    return embedding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("camera"), "lacks the array 'camera'"),
        (changed("embedding", with_nan), "1 of 10578 embeddings hold NaN or infinity, the first of them 'cam1/"),
        (changed("embedding", lambda rows: rows[:, 0]), "the array 'embedding' has shape (10578,)"),
        (changed("embedding", lambda rows: rows[:-1]), "there are 10577 embeddings"),
        (changed("embedding", lambda rows: rows.astype(np.int64)), "holds int64; give floating point values"),
        (changed("identity", lambda rows: rows / 2), "the array 'identity' holds torch.float64; give whole numbers"),
        (changed("modality", lambda rows: rows + 1), "the array 'modality' holds 2"),
        (changed("path", lambda rows: np.arange(len(rows))), "the array 'path' holds int64"),
        (changed("identity", lambda rows: rows.astype(str)), "the array 'identity' holds <U21; give whole numbers"),
        (lambda arrays: {key: value[5:] for key, value in arrays.items()}, "5 of the 10578 images"),
        (
            lambda arrays: {
                key: np.append(value, ["cam3/0006/9999.jpg"] if key == "path" else value[-1:], axis=0)
                for key, value in arrays.items()
            },
            "1 images are none of the 10578 that the split lists, the first is cam3/0006/9999.jpg",
        ),
        (lambda arrays: arrays | {"about": np.array("{")}, "the array 'about' is no JSON text"),
        (lambda arrays: arrays | {"about": np.array("[1]")}, "the array 'about' is no JSON object"),
        (
            changed("embedding", lambda rows: rows.astype(np.longdouble)),
            "give floating point values of 16, 32 or 64 bits",
        ),
        (
            changed("embedding", lambda rows: rows.astype(np.float64) * 1e300),
            "10578 of 10578 embeddings hold NaN or inf",
        ),
    ],
)
def test_a_bad_file_is_one_sentence(arrays, root, tmp_path, capsys, change, message):
    np.savez(tmp_path / "bad.npz", **change(arrays))
    with pytest.raises(SystemExit, match="2"):
        call(tmp_path / "bad.npz", root)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (b"text", "cannot be read as an .npz file of plain arrays: it is none; `lightning predict` writes one"),
        (b"", "cannot be read"),
    ],
)
def test_a_file_that_is_no_npz(root, tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        call(tmp_path / "bad.npz", root)
    assert message in capsys.readouterr().err


def test_a_folder_as_output_is_refused_before_scoring(embeddings, root, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit):
        call(embeddings, root, "--output", tmp_path / "folder", "--overwrite")
    assert "folder is a folder; give --output the name of a .json file" in capsys.readouterr().err


def test_nothing_unfinished_is_left(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"), atomic_write(tmp_path / "taken") as file:
        file.write(b"some")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_files_are_for_whom_the_users_other_files_are(tmp_path):
    (tmp_path / "other").write_text("")
    Embeddings(torch.eye(2), [1, 2]).save(tmp_path / "e.npz")
    assert (tmp_path / "e.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_arrays_without_a_suffix_are_read(tmp_path):
    labels = {name: np.zeros(2, dtype=np.int64) for name in ("identity", "camera", "modality")}
    arrays = {"embedding": np.eye(2), "path": np.array(["a", "b"]), **labels}
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        for name, values in arrays.items():
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, values)
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "e.npz").embedding, np.eye(2))


def test_re_ranking_a_large_gallery_is_refused_before_any_scoring(monkeypatch):
    monkeypatch.setattr("vireid_lightning.metrics.engine.WIDEST_CHUNK", 2)
    monkeypatch.setattr("vireid_lightning.metrics.engine.rank_true_matches", None)
    with pytest.raises(VIReIDError, match="re-ranking takes galleries of up to 2 images, and this one has 3"):
        evaluate((torch.eye(3), [1, 2, 3]), (torch.eye(3), [1, 2, 3]), rerank=True)


def test_objects_in_a_file_are_not_unpickled(root, tmp_path, capsys):
    np.savez(
        tmp_path / "bad.npz",
        **{name: np.array([{}], dtype=object) for name in ("embedding", "identity", "camera", "modality", "path")},
    )
    with pytest.raises(SystemExit, match="2"):
        call(tmp_path / "bad.npz", root)
    assert "cannot be read as an .npz file of plain arrays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "SYSUMM1"], "Did you mean 'SYSUMM01'?"),
        (["--metric", "manhattan"], "The distance 'manhattan' is unknown"),
        (["--root", "/nowhere"], "/nowhere does not exist"),
        (["--trial", "1"], "leave out --trial"),
        (["--direction", "visible-to-infrared"], "leave out --direction"),
        (["--block-mb", "0"], "--block-mb is 0"),
    ],
)
def test_bad_arguments(embeddings, root, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        call(embeddings, root, *arguments)
    assert message in capsys.readouterr().err


def test_embeddings_survive_a_file(tmp_path):
    about = {"dataset": "Toy", "dataset_trial": None}
    saved = Embeddings(torch.eye(3), [1, 2, -1], [1, 2, -1], [0, 1, 0], ["a/ä.jpg", "b.jpg", "c.jpg"], about=about)
    saved.save(tmp_path / "e.npz")
    loaded = Embeddings.load(tmp_path / "e.npz")
    assert loaded.samples() == saved.samples()
    assert loaded.about == about
    np.testing.assert_array_equal(loaded.embedding, saved.embedding)
    assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize(
    ("write", "mapped"),
    [
        (np.savez, True),
        (np.savez_compressed, False),
        (lambda to, **arrays: np.savez(to, padding=b"x", **arrays), True),
    ],
    ids=["as it is", "compressed", "shifted by a byte"],
)
def test_embeddings_stay_in_the_file_where_they_can(tmp_path, write, mapped, dtype):
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    labels = {name: np.zeros(5, dtype=np.int64) for name in ("identity", "camera", "modality")}
    write(tmp_path / "e.npz", embedding=rows, path=np.array([f"{n}.jpg" for n in range(5)]), **labels)
    loaded = Embeddings.load(tmp_path / "e.npz")
    assert isinstance(loaded.embedding, np.memmap) == (mapped and rows.dtype.isnative and os.name != "nt")
    np.testing.assert_array_equal(loaded.embedding, rows)
    chosen = loaded.rows(torch.tensor([3, 1]), "euclidean")
    np.testing.assert_array_equal(chosen, rows[[3, 1]].astype(np.float32))


def test_a_manifest_of_the_other_direction_alone(tmp_path, capsys):
    lines = ["path,identity,modality,camera,split", "a.jpg,1,visible,1,query", "b.jpg,1,infrared,2,gallery"]
    (tmp_path / "m.csv").write_text("\n".join([*lines, "c.jpg,2,infrared,2,gallery"]))
    labels = {"identity": [1, 1, 2], "camera": [1, 2, 2], "modality": [0, 1, 1], "path": ["a.jpg", "b.jpg", "c.jpg"]}
    np.savez(tmp_path / "e.npz", embedding=np.eye(3)[[0, 0, 1]], **labels)
    words = ["evaluate", str(tmp_path / "e.npz"), "--dataset", "Manifest", "--root", str(tmp_path / "m.csv")]
    with pytest.raises(SystemExit):
        vireid(words)
    assert "set direction='visible-to-infrared'" in capsys.readouterr().err
    vireid([*words, "--direction", "visible-to-infrared"])
    assert "100.00" in capsys.readouterr().out


def test_details_are_not_overwritten(embeddings, root, tmp_path, capsys):
    (tmp_path / "details.npz").write_bytes(b"mine")
    with pytest.raises(SystemExit, match="2"):
        call(embeddings, root, "--details", tmp_path / "details.npz")
    assert "give --overwrite to replace it, or another --details" in capsys.readouterr().err
    assert (tmp_path / "details.npz").read_bytes() == b"mine"


def test_results_and_details_go_to_two_files(embeddings, root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(embeddings, root, "--details", tmp_path / "same.json", "--output", tmp_path / "same.json")
    assert "give each a file of its own" in capsys.readouterr().err
