"""Every kind of file that is read, spoilt in every way: one sentence, quickly, in little memory, and nothing runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from references import hostile
from references.deployment import write_checkpoint
from safetensors.torch import save_file
from scipy.io import savemat

from vireid_lightning.data.datasets.index_files import read_matrix_numbers
from vireid_lightning.data.datasets.manifest import Manifest
from vireid_lightning.data.datasets.regdb import RegDB
from vireid_lightning.deployment import Embedder, Gallery
from vireid_lightning.deployment.image_lists import list_images
from vireid_lightning.methods import AGW
from vireid_lightning.methods.loading import load_method
from vireid_lightning.metrics import Embeddings, compare
from vireid_lightning.metrics.aggregation import aggregate, render
from vireid_lightning.metrics.quoted import read_quoted
from vireid_lightning.metrics.result_files import read_result_file
from vireid_lightning.modules.weights import read_weights

THRESHOLD = {"threshold": 0.3, "queries": 9, "gallery_images": 9, "identities": 3, "miss_rate": None}
ABOUT = {
    "dataset": "Mine",
    "method": "AGW",
    "weights": "ab",
    "distance": "cosine",
    "image_size": [64, 32],
    "interpolation": "bilinear",
    "thresholds": {"stated_rate": 0.01, "distance": "cosine", "visible": THRESHOLD},
}
ARRAYS = {
    "embedding": np.random.default_rng(0).standard_normal((6, 4)).astype("f4"),
    "identity": np.arange(6),
    "camera": np.arange(6),
    "modality": np.arange(6) % 2,
    "path": np.array([f"a/{number}.png" for number in range(6)]),
    "about": np.array(json.dumps(ABOUT)),
}
ROW = {"protocol": "all", "scores": {"rank1": 50.0, "mAP": 40.0}, "trials": 1, "queries": 3, "reranking": {"k1": 20}}
RESULT = {"format": 1, "stage": "test", "dataset": "Mine", "method": "AGW", "unit": "percent", "results": [ROW]}
MANIFEST = "path,identity,modality,camera,split\na.png,1,visible,1,train\nb.png,1,infrared,2,train\n"
QUOTED = "method,protocol,rank1,mAP\nOther,all,50,40\n"


@pytest.fixture(autouse=True, scope="module")
def _in_little_memory():
    with hostile.watch_memory():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The content of a checkpoint, as training writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("valid") / "valid.ckpt"
    write_checkpoint(path, AGW(num_classes=3, backbone="test_resnet", pretrained=False))
    content = torch.load(path, weights_only=True)
    content["vireid"] |= {"dataset": {"name": "Mine", "trial": 1, "fingerprint": "ab", "distance": "cosine"}}
    content["vireid"] |= {"identities": [1, 2, 3], "training": {"weights": "random", "seed": 0}}
    return content


def write_valid(kind: str, folder: Path, checkpoint) -> Path:
    """Write a valid file of a kind."""
    path = folder / SUFFIXES[kind][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "results":
        path.write_bytes(hostile.to_json(RESULT))
    elif kind in ("embeddings", "gallery"):
        path.write_bytes(hostile.save_arrays(ARRAYS))
    elif kind == "checkpoint":
        torch.save(checkpoint, path)
    elif kind in ("weights", "safetensors"):
        import timm

        state = timm.create_model("test_resnet", pretrained=False).state_dict()
        torch.save(state, path) if kind == "weights" else save_file(state, path)
    elif kind == "mat":
        savemat(path, {"id": np.arange(1, 4)})
    elif kind == "split":
        for part, first in (("train", 1), ("test", 11)):
            for word in ("visible", "thermal"):
                rows = [f"{word.title()}/{number}/a.bmp {number - first}" for number in range(first, first + 3)]
                (path.parent / f"{part}_{word}_1.txt").write_text("\n".join(rows))
    else:
        path.write_text(QUOTED if kind == "quoted" else MANIFEST)
    return path


#: A kind of file -> its name, and what reads it.
SUFFIXES = {
    "results": ("r.json", lambda path: (read_result_file(path), compare([path]), render(aggregate([path])))),
    "embeddings": ("e.npz", Embeddings.load),
    "gallery": ("g.npz", Gallery.load),
    "checkpoint": ("c.ckpt", load_method),
    "weights": ("w.pth", lambda path: read_weights(str(path), "test_resnet")),
    "safetensors": ("w.safetensors", lambda path: read_weights(str(path), "test_resnet")),
    "manifest": ("m.csv", Manifest),
    "image list": ("i.csv", lambda path: list_images([path])),
    "quoted": ("q.csv", lambda path: read_quoted(path, ["all"], ["rank1", "mAP"])),
    "mat": ("a.mat", lambda path: read_matrix_numbers("Mine", path)),
    "split": ("idx/train_visible_1.txt", lambda path: RegDB(path.parents[1])),
}
SPOILT = list(hostile.spoil_bytes(b"valid"))
#: Text files of which a part is a file of their own.
HALVES = {
    ("quoted", "the first 40 bytes"),
    ("split", "the first half"),
    ("split", "the second half"),
    ("split", "the first 40 bytes"),
}
HALVES |= {(kind, f"the first {part}") for kind in ("manifest", "image list") for part in ("half", "40 bytes")}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_what_is_no_such_file_is_refused(kind, name, tmp_path, checkpoint, monkeypatch):
    if (kind, name) in HALVES:
        pytest.skip("may be a shorter file of its kind")
    monkeypatch.chdir(tmp_path)
    path, read = write_valid(kind, tmp_path, checkpoint), SUFFIXES[kind][1]
    read(path)
    path.write_bytes(hostile.spoil_bytes(path.read_bytes())[name])
    hostile.refuse(lambda: read(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", [kind for kind in SUFFIXES if kind not in ("split", "image list")])
def test_what_is_no_regular_file_is_refused(kind, tmp_path):
    file, read = SUFFIXES[kind]
    for path in hostile.place_what_is_no_file(tmp_path, Path(file).suffix).values():
        hostile.refuse(lambda path=path: read(path))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_flipped_bytes_are_read_or_refused(kind, tmp_path, checkpoint):
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
