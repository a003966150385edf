"""One small valid file of each kind that is read, and what reads it: the examples that tests spoil."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from references import hostile
from references.deployment import write_checkpoint
from safetensors.torch import save_file
from scipy.io import savemat

from vireid_lightning.data.datasets.index_files import read_matrix_numbers
from vireid_lightning.data.datasets.llcm import LLCM
from vireid_lightning.data.datasets.manifest import Manifest
from vireid_lightning.data.datasets.regdb import RegDB
from vireid_lightning.data.datasets.sysu_mm01 import SYSUMM01
from vireid_lightning.data.datasets.sysu_mm02 import SYSUMM02
from vireid_lightning.data.synthetic.layouts import plan_llcm, plan_sysu_mm01, plan_sysu_mm02
from vireid_lightning.deployment import Gallery, GalleryIndex
from vireid_lightning.deployment.image_lists import list_images
from vireid_lightning.methods import AGW
from vireid_lightning.methods.loading import load_method
from vireid_lightning.metrics import Embeddings, compare
from vireid_lightning.metrics.aggregation import aggregate, render
from vireid_lightning.metrics.quoted import read_quoted
from vireid_lightning.metrics.result_files import read_result_file
from vireid_lightning.modules.weights import read_weights
from vireid_lightning.protocols import Protocol
from vireid_lightning.report.training_curves import read_training_curves

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
CURVES = "epoch,step,train/identity,val/mAP\n0,9,5.5,\n0,9,,40\n"
QUOTED = "method,protocol,rank1,mAP\nOther,all,50,40\n"


#: The index files of a layout, drawn small, by a kind of file that is one of them.
LAYOUTS = {
    "orders": functools.partial(plan_sysu_mm01, 2, 1, 2, 2),
    "identities": functools.partial(plan_sysu_mm01, 2, 1, 2, 2),
    "LLCM's list": functools.partial(plan_llcm, 2, 2, 2),
    "LLCM's identities": functools.partial(plan_llcm, 2, 2, 2),
    "SYSU-MM02's list": functools.partial(plan_sysu_mm02, 2, 2, 2),
    "SYSU-MM02's test list": functools.partial(plan_sysu_mm02, 2, 2, 2),
}


def make_gallery() -> Gallery:
    """Return a gallery that an index can be built of."""
    return Gallery(Embeddings(ARRAYS["embedding"], ARRAYS["identity"], about={"weights": "ab"}))


def make_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, as training writes it; a file of it stays in the folder."""
    torch.manual_seed(0)
    path = folder / "valid.ckpt"
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
    elif kind in LAYOUTS:
        root = path.parents[len(Path(SUFFIXES[kind][0]).parts) - 1]
        for name, content in LAYOUTS[kind]().index_files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(content)
    elif kind == "index":
        GalleryIndex.build(make_gallery()).save(path)
    elif kind == "curves":
        path.write_text(CURVES)
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


def read_protocols(dataset: SYSUMM01 | SYSUMM02) -> list[Protocol]:
    """Return the protocols of the images that the index files list, as scoring saved embeddings builds them."""
    listed = dataset.listed("test") if isinstance(dataset, SYSUMM01) else dataset._test
    return dataset.protocols(listed or [])


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
    "orders": ("exp/rand_perm_cam.mat", lambda path: read_protocols(SYSUMM01(path.parents[1]))),
    "identities": ("exp/test_id.txt", lambda path: read_protocols(SYSUMM01(path.parents[1]))),
    "LLCM's list": ("idx/train_nir.txt", lambda path: LLCM(path.parents[1])),
    "LLCM's identities": ("idx/test_id.txt", lambda path: LLCM(path.parents[1])),
    "SYSU-MM02's list": ("train.txt", lambda path: SYSUMM02(path.parent)),
    "SYSU-MM02's test list": ("test_rgb.txt", lambda path: read_protocols(SYSUMM02(path.parent))),
    "index": ("i.npz", lambda path: GalleryIndex.load(path, make_gallery()).search(make_gallery().embeddings, 2)),
    "curves": ("metrics.csv", read_training_curves),
    "split": ("idx/train_visible_1.txt", lambda path: RegDB(path.parents[1])),
}
