from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vireid_lightning.deployment import Embedder, export_checkpoint, exporting, parity
from vireid_lightning.errors import VIReIDError


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder.from_checkpoint(checkpoint, device="cpu")


def pixels(embedder, images):
    paths = sorted(images.rglob("*.png"))
    modality = [int(path.parent.name == "camera3") for path in paths]
    return np.stack([embedder.prepare(*item) for item in zip(paths, modality)]), np.array(modality)


def require_clean(path):
    """No head, such as a classifier of the training identities, and no folder of this machine is in the file."""
    content = path.read_bytes()
    assert b"neck" in content
    for part in ("classifier", str(path.parent), str(Path(exporting.__file__).parents[2])):
        assert part.encode() not in content


def require_close(found, embedder, batch, share=1e-4):
    expected = embedder.embed_pixels(*batch).numpy()
    assert (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max() < share


@pytest.mark.slow
def test_onnx_gives_pytorchs_embeddings_and_says_how_images_are_prepared(embedder, images, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    exported = export_checkpoint(embedder, tmp_path / "a.onnx", images=[images])
    assert set(exported.differences) == {"random", "drawn", "given"}
    assert max(exported.differences.values()) < 1e-4
    session = runtime.InferenceSession(tmp_path / "a.onnx")
    batch = pixels(embedder, images)
    for part in (slice(None), slice(0, 1), slice(11, 14)):
        (found,) = session.run(["embedding"], {"images": batch[0][part], "modality": batch[1][part]})
        require_close(found, embedder, (batch[0][part], batch[1][part]))
    about = json.loads(session.get_modelmeta().custom_metadata_map["vireid"])
    assert about == exported.metadata
    assert about["preprocessing"]["image_size"] == [64, 32]
    assert about["preprocessing"]["interpolation"] == "bilinear"
    require_clean(tmp_path / "a.onnx")
    assert (about["weights"], about["modality"], about["distance"]) == (embedder.weights, "input", "cosine")


@pytest.mark.slow
def test_onnx_of_one_modality_in_half_precision(embedder, images, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    exported = export_checkpoint(embedder, tmp_path / "half.onnx", modality=1, half=True)
    assert 0 < max(exported.differences.values()) < 2e-2
    parameters = sum(parameter.numel() for parameter in embedder.method.backbone.parameters())
    assert (tmp_path / "half.onnx").stat().st_size < 3 * parameters  # float32 takes 4 bytes each
    session = runtime.InferenceSession(tmp_path / "half.onnx")
    assert [item.name for item in session.get_inputs()] == ["images"]
    batch = [part[12:] for part in pixels(embedder, images)]
    require_close(session.run(None, {"images": batch[0]})[0], embedder, batch, share=2e-2)


@pytest.mark.slow
def test_torchscript_and_torch_export_run_without_this_package(embedder, images, tmp_path):
    batch = pixels(embedder, images)
    tensors = [torch.from_numpy(part) for part in batch]
    export_checkpoint(embedder, tmp_path / "a.pt", "torchscript")
    extra = {"vireid.json": ""}
    with torch.no_grad():
        require_close(torch.jit.load(tmp_path / "a.pt", _extra_files=extra)(*tensors).numpy(), embedder, batch)
    assert json.loads(extra["vireid.json"])["preprocessing"]["image_size"] == [64, 32]
    export_checkpoint(embedder, tmp_path / "a.pt2", "pt2")
    require_clean(tmp_path / "a.pt")
    require_clean(tmp_path / "a.pt2")
    extra = {"vireid.json": ""}
    loaded = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()
    require_close(loaded(*tensors).detach().numpy(), embedder, batch)
    assert json.loads(extra["vireid.json"])["weights"] == embedder.weights


def test_safetensors_holds_the_checkpoints_weights(embedder, tmp_path):
    from safetensors import safe_open

    export_checkpoint(embedder, tmp_path / "a.safetensors", "safetensors")
    state = embedder.method.state_dict()
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(state)
        assert all(torch.equal(file.get_tensor(name), state[name]) for name in state)
        assert json.loads(file.metadata()["vireid"])["preprocessing"]["image_size"] == [64, 32]


def test_a_file_that_differs_is_not_kept(embedder, tmp_path, monkeypatch):
    write = exporting._WRITERS["torchscript"]

    def spoil(network, *others):
        with torch.no_grad():
            next(network.method.neck.parameters()).mul_(torch.linspace(0.9, 1.1, len(network.method.neck.weight)))
        return write(network, *others)

    monkeypatch.setitem(exporting._WRITERS, "torchscript", spoil)
    with pytest.raises(
        VIReIDError, match=r"a.pt differs from PyTorch by 0.0\d+ .* on the random images.*it was not kept"
    ):
        export_checkpoint(embedder, tmp_path / "a.pt", "torchscript")
    assert not list(tmp_path.iterdir())


def test_the_users_images_are_compared_too(embedder, tmp_path):
    Image.fromarray(np.full((50, 25, 3), 7, dtype=np.uint8)).save(tmp_path / "dark.png")
    batches = parity.check_images(embedder, None, [tmp_path / "dark.png"])

    def serve(batch):  # wrong on infrared images that are dark
        found = embedder.embed_pixels(batch[0], batch[1].tolist()).numpy()
        return found * np.where((batch[0].max(axis=(1, 2, 3)) == 7) & (batch[1] == 1), -1, 1)[:, None]

    with pytest.raises(VIReIDError, match=r"differs from PyTorch by 2 .* on the given images"):
        parity.compare(embedder, serve, batches, half=False, origin="it")


@pytest.mark.parametrize("spoil", [lambda found: found[:, :5], lambda found: found * np.nan])
def test_other_shapes_and_nan_are_differences(embedder, spoil):
    with pytest.raises(VIReIDError, match=r"embeddings of shape|differs from PyTorch by nan"):
        parity.compare(
            embedder,
            lambda batch: spoil(embedder.embed_pixels(batch[0], batch[1].tolist()).numpy()),
            parity.check_images(embedder, 0, []),
            half=False,
            origin="it",
        )


def test_bad_input(embedder, tmp_path, monkeypatch):
    with pytest.raises(VIReIDError, match="The format 'tflite' is unknown"):
        export_checkpoint(embedder, tmp_path / "a", "tflite")
    with pytest.raises(VIReIDError, match="leave out the modality and half"):
        export_checkpoint(embedder, tmp_path / "a", "safetensors", half=True)
    (tmp_path / "a").touch()
    with pytest.raises(VIReIDError, match="exists and is never overwritten"):
        export_checkpoint(embedder, tmp_path / "a")
    with pytest.raises(VIReIDError, match="No file fits the pattern"):
        export_checkpoint(embedder, tmp_path / "b", images=["nothing*"])

    def lack(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", lack)
    with pytest.raises(VIReIDError, match=r"needs onnx, .*pip install vireid-lightning\[export\]"):
        export_checkpoint(embedder, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
