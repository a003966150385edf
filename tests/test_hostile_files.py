"""Every kind of file that is read, spoilt in every way: one sentence, quickly, in little memory, and nothing runs."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from references import hostile
from references.valid_files import ABOUT, ARRAYS, LAYOUTS, RESULT, SUFFIXES, make_checkpoint, write_valid
from scipy.io import loadmat, savemat

from vireid_lightning.deployment import Embedder, Gallery
from vireid_lightning.methods.loading import load_method
from vireid_lightning.metrics import Embeddings


@pytest.fixture(autouse=True, scope="module")
def _in_little_memory():
    with hostile.watch_memory():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The content of a checkpoint, as training writes it."""
    return make_checkpoint(tmp_path_factory.mktemp("valid"))


SPOILT = list(hostile.spoil_bytes(b"valid"))
#: Text files of which a part is a file of their own.
HALVES = {
    ("quoted", "the first 40 bytes"),
    ("split", "the first half"),
    ("split", "the second half"),
    ("split", "the first 40 bytes"),
}
HALVES |= {
    (kind, part) for kind in ("identities", "LLCM's identities") for part in ("the first half", "the first 40 bytes")
}
HALVES |= {(kind, f"the {part} half") for kind in LAYOUTS if kind != "orders" for part in ("first", "second")}
HALVES |= {("curves", part) for part in ("nothing", "the first half", "the first 40 bytes")}
HALVES |= {(kind, f"the first {part}") for kind in ("manifest", "image list") for part in ("half", "40 bytes")}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_what_is_no_such_file_is_refused(kind, name, tmp_path, checkpoint, monkeypatch):
    if (kind, name) in HALVES:
        pytest.skip("may be a shorter file of its kind")
    monkeypatch.chdir(tmp_path)
    if kind == "index":
        pytest.importorskip("faiss")
    path, read = write_valid(kind, tmp_path, checkpoint), SUFFIXES[kind][1]
    read(path)
    path.write_bytes(hostile.spoil_bytes(path.read_bytes())[name])
    hostile.refuse(lambda: read(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", [kind for kind in SUFFIXES if kind not in ("split", "image list", *LAYOUTS)])
def test_what_is_no_regular_file_is_refused(kind, tmp_path):
    if kind == "index":
        pytest.importorskip("faiss")
    file, read = SUFFIXES[kind]
    for path in hostile.place_what_is_no_file(tmp_path, Path(file).suffix).values():
        hostile.refuse(lambda path=path: read(path))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_flipped_bytes_are_read_or_refused(kind, tmp_path, checkpoint):
    if kind == "index":
        pytest.importorskip("faiss")
    path, read = write_valid(kind, tmp_path, checkpoint), SUFFIXES[kind][1]
    for content in hostile.flip_bytes(path.read_bytes(), 20):
        path.write_bytes(content)
        hostile.try_reading(lambda: read(path))


@pytest.mark.parametrize("name", hostile.spoil_arrays(ARRAYS, free=("about",)))
def test_arrays_that_are_others_are_refused(name, tmp_path):
    path = tmp_path / "e.npz"
    path.write_bytes(hostile.spoil_arrays(ARRAYS, free=("about",))[name])
    hostile.refuse(lambda: Embeddings.load(path))


def test_a_compressed_file_does_not_fill_the_memory(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", **{**ARRAYS, "path": np.zeros(2**27, "S1")})
    assert "would take 128 MiB" in hostile.refuse(lambda: Embeddings.load(tmp_path / "bomb.npz"))


def test_what_a_gallery_says_is_read_or_refused(tmp_path):
    path, query = (
        tmp_path / "g.npz",
        Embeddings(torch.randn(3, 4), [1, 2, 3], modality=[0, 1, 0], about={"weights": "ab"}),
    )
    said = []
    for name, about in hostile.spoil_values(ABOUT):
        path.write_bytes(hostile.save_arrays({**ARRAYS, "about": np.array(json.dumps(about))}))
        told = hostile.try_reading(lambda: str(Gallery.load(path).search(query, 2)))
        said += [name] * (told is not None)
    assert {"thresholds.visible.threshold: text", "thresholds.stated_rate: null", "distance: text"} <= set(said)
    assert {f"thresholds.distance: {value}" for value in ("text", "null", "NaN", "a list", "10^20")} <= set(said)
    assert {f"thresholds.stated_rate: {value}" for value in ("NaN", "10^20", "a list", "text")} <= set(said)


@pytest.mark.parametrize(
    ("thresholds", "told"),
    [
        ({"distance": "euclidean"}, "has thresholds for the distance euclidean, but is searched by cosine"),
        ({"distance": "cosin"}, "'about.thresholds.distance' is no distance"),
        ({"stated_rate": -1}, "'about.thresholds.stated_rate' is -1, out of its range"),
        ({"stated_rate": 1.5}, "'about.thresholds.stated_rate' is 1.5, out of its range"),
        ({"visible": {"threshold": -0.5}}, "'about.thresholds.visible.threshold' is -0.5, out of its range"),
        ({"visible": {"threshold": 1e301}}, "out of its range"),
    ],
)
def test_thresholds_that_would_judge_wrongly_are_refused(thresholds, told, tmp_path):
    about = {**ABOUT, "thresholds": {**ABOUT["thresholds"], **thresholds}}
    path = tmp_path / "g.npz"
    path.write_bytes(hostile.save_arrays({**ARRAYS, "about": np.array(json.dumps(about))}))
    assert told in hostile.refuse(lambda: Gallery.load(path))


def test_results_that_are_others_are_read_or_refused(tmp_path):
    path, read = tmp_path / "r.json", SUFFIXES["results"][1]
    for _, content in hostile.spoil_values(RESULT):
        path.write_bytes(hostile.to_json(content))
        hostile.try_reading(lambda: read(path))


def test_what_a_checkpoint_says_is_read_or_refused(tmp_path, checkpoint):
    path = tmp_path / "c.ckpt"
    wanted = {"hyper_parameters.gem_p: text", "hyper_parameters.num_classes: 10^20", "vireid.method: a list"}
    wanted |= {"vireid.preprocessing.image_size: 10^20", "hyper_parameters.optimization.lr: NaN"}
    refused = []
    spoilt = hostile.spoil_values({key: checkpoint[key] for key in ("hyper_parameters", "vireid", "epoch")})
    for number, (name, content) in enumerate(spoilt):
        if number % 5 and name not in wanted:  # all of them take half a minute
            continue
        torch.save({**checkpoint, **content, "state_dict": {}}, path)
        told = hostile.try_reading(lambda: Embedder.from_checkpoint(path))
        refused += [name] * (told is not None and "lacks the tensor" not in told)
    assert len(refused) > 60
    assert wanted <= set(refused)


STATES = {
    "null": lambda value: None,
    "a text": lambda value: "a",
    "a list": lambda value: [1.0],
    "NaN": lambda value: torch.full_like(value, torch.nan),
    "infinity": lambda value: torch.full_like(value, torch.inf),
    "another shape": lambda value: torch.zeros(1, 2),
    "whole numbers": lambda value: value.long(),
    "complex numbers": lambda value: value.to(torch.complex64),
    "without values": lambda value: value.to("meta"),
    "sparse": lambda value: value.to_sparse(),
    "empty": lambda value: torch.zeros(0),
    "10^12 values out of one": lambda value: torch.zeros(1).expand(10**12),
}


@pytest.mark.parametrize("name", STATES)
def test_tensors_that_are_others_are_refused(name, tmp_path, checkpoint):
    state = checkpoint["state_dict"]
    first = next(iter(state))
    torch.save({**checkpoint, "state_dict": {**state, first: STATES[name](state[first])}}, tmp_path / "c.ckpt")
    hostile.refuse(lambda: load_method(tmp_path / "c.ckpt"))


@pytest.mark.parametrize("state", [None, [], {}, "a", {3: torch.zeros(1)}, {"more": torch.zeros(1)}], ids=str)
def test_states_that_are_others_are_refused(state, tmp_path, checkpoint):
    torch.save({**checkpoint, "state_dict": state}, tmp_path / "c.ckpt")
    hostile.refuse(lambda: load_method(tmp_path / "c.ckpt"))


@pytest.mark.parametrize("backbone", ["hf-hub:someone/network", "local-dir:/tmp/network", "os.path", None, 3, ["a"]])
def test_a_backbone_that_is_no_plain_name_of_timms_is_refused(backbone, tmp_path, checkpoint):
    arguments = {**checkpoint["hyper_parameters"], "backbone": backbone}
    torch.save({**checkpoint, "hyper_parameters": arguments}, tmp_path / "c.ckpt")
    hostile.refuse(lambda: load_method(tmp_path / "c.ckpt"))


def test_a_pickle_that_asks_for_memory_gets_none(tmp_path, checkpoint):
    path = tmp_path / "c.ckpt"
    torch.save(checkpoint, path)
    asking = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R."
    archive = path.read_bytes()
    path.write_bytes(hostile.rewrite(archive, lambda name, old: asking if name.endswith("data.pkl") else old))
    assert "memory without bounds" in hostile.refuse(lambda: load_method(path))
    path.write_bytes(hostile.rewrite(archive, lambda _, old: old, hostile.zipfile.ZIP_DEFLATED))
    assert "compressed archive" in hostile.refuse(lambda: load_method(path))


@pytest.mark.parametrize("argument", ["", 0, None])
def test_an_argument_without_a_name_is_refused(argument, tmp_path, checkpoint):
    arguments = {**checkpoint["hyper_parameters"], argument: 1}
    torch.save({**checkpoint, "hyper_parameters": arguments}, tmp_path / "c.ckpt")
    hostile.refuse(lambda: load_method(tmp_path / "c.ckpt"))


@pytest.mark.parametrize("found", [torch.zeros(2), torch.ones(1), [1], "1", None], ids=str)
def test_another_format_is_refused(found, tmp_path, checkpoint):
    torch.save({**checkpoint, "vireid": {**checkpoint["vireid"], "format": found}}, tmp_path / "c.ckpt")
    assert "in a format" in hostile.refuse(lambda: load_method(tmp_path / "c.ckpt"))


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "identities"])
def test_an_index_file_that_is_no_regular_file_is_refused(kind, tmp_path):
    path, read = write_valid(kind, tmp_path, None), SUFFIXES[kind][1]
    for name, place in hostile.place_what_is_no_file(tmp_path, path.suffix).items():
        if name not in ("a NUL", "a name too long"):
            path.unlink()
            path.symlink_to(place)
            hostile.refuse(lambda: read(path))


#: What stands in the place of a cell, or of all of them.
CELLS: dict[str, object] = {
    "a text": "text",
    "NaN": np.full((10, 2), np.nan),
    "halves": np.full((10, 2), 1.5),
    "-1": np.full((10, 2), -1),
    "10^20": np.full((10, 2), 1e20),
    "complex numbers": np.full((10, 2), 1j),
    "one row": np.ones((1, 2)),
    "one number": 1,
    "other images": np.arange(20).reshape(10, 2),
    "an object": {"a": 1},
    "three dimensions": np.ones((10, 2, 2)),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("place", ["a cell", "a camera", "all cameras"])
def test_orders_of_other_values_are_refused(place, name, tmp_path):
    path, read = write_valid("orders", tmp_path, None), SUFFIXES["orders"][1]
    cells = loadmat(path)["rand_perm_cam"]
    if place == "a cell":
        people = cells[0, 0]
        people.ravel()[3] = CELLS[name]
    elif place == "a camera":
        cells.ravel()[0] = CELLS[name]
    savemat(path, {"rand_perm_cam": CELLS[name] if place == "all cameras" else cells})
    hostile.refuse(lambda: read(path))


@pytest.mark.parametrize("values", ["a", [[1.5]], [[np.nan]], [[-1]], [[1e20]], [[1j]], [], {"a": 1}], ids=str)
def test_identities_of_other_values_are_refused(values, tmp_path):
    savemat(tmp_path / "a.mat", {"id": values})
    hostile.refuse(lambda: SUFFIXES["mat"][1](tmp_path / "a.mat"))


def test_a_compressed_matlab_file_does_not_fill_the_memory(tmp_path):
    variable = zlib.compress(bytes(2**26 + 8), 1)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<2I", 15, len(variable)) + variable)
    assert "more than 64 MiB" in hostile.refuse(lambda: SUFFIXES["mat"][1](tmp_path / "a.mat"))


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "orders"])
def test_lines_of_other_words_are_refused(kind, tmp_path):
    path, read = write_valid(kind, tmp_path, None), SUFFIXES[kind][1]
    first, *others = path.read_text().splitlines()
    words = first.split()
    lists = [f"{word} {' '.join(words[1:])}" for word in ("/etc/passwd", "../a.jpg", "C:\\a.jpg", "a\0.jpg")]
    numbers = ["x", "1.5", "NaN", "-", "1" * 5000]
    # LLCM's labels are never read: the folder's name is the identity.
    ends = [] if kind in ("identities", "LLCM's identities", "LLCM's list") else [[*words[:-1], end] for end in numbers]
    lines = numbers if "identities" in kind else [*lists, *(" ".join(line) for line in ends), "one-word"]
    for line in lines:
        path.write_text("\n".join([line, *others]))
        hostile.refuse(lambda: read(path))


def test_what_an_index_says_is_read_or_refused(tmp_path):
    pytest.importorskip("faiss")
    path, read = write_valid("index", tmp_path, None), SUFFIXES["index"][1]
    with np.load(path) as arrays:
        valid = dict(arrays)
    said = json.loads(str(valid["about"]))
    for name, about in hostile.spoil_values({key: said[key] for key in ("probes", "gallery")}):
        path.write_bytes(hostile.save_arrays({**valid, "about": np.array(json.dumps(about))}))
        told = hostile.try_reading(lambda: read(path))
        assert told is not None or not name.startswith(("probes", "gallery")) or name == "probes: true", name
    for content in hostile.spoil_arrays(valid).values():
        path.write_bytes(content)
        hostile.refuse(lambda: read(path))


def test_cells_of_training_curves_that_are_no_numbers_are_left_out(tmp_path):
    path, read = write_valid("curves", tmp_path, None), SUFFIXES["curves"][1]
    for word in ("x", "NaN", "inf", "1e999", "[1]", "\x1b[31m", "1" * 5000):
        path.write_text(f"step,val/mAP\n1,{word}\n{word},2\n3,4\n")
        assert read(path).scores == {"mAP": [(3.0, 4.0)]}
