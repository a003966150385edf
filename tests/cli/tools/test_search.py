"""From a checkpoint and image files to rank lists, by the commands: embed, threshold, index, search."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from references.deployment import make_streams_differ, write_checkpoint

from vireid_lightning.cli import vireid
from vireid_lightning.deployment import Embedder, Gallery
from vireid_lightning.methods import AGW
from vireid_lightning.metrics import Embeddings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint, 40 visible and 40 infrared images of 10 persons, and their CSV files."""
    root = tmp_path_factory.mktemp("search")
    generator = np.random.default_rng(0)
    rows = []
    for person in range(10):
        look = generator.integers(0, 256, (8, 4, 3))
        for number in range(4):
            for kind, camera in (("visible", 1), ("infrared", 3)):
                noisy = np.clip(look + generator.normal(0, 20, look.shape), 0, 255).astype(np.uint8)
                image = Image.fromarray(noisy).resize((32, 64))
                path = f"{kind}/{person}_{number}.png"
                (root / kind).mkdir(exist_ok=True)
                (image.convert("L") if kind == "infrared" else image).save(root / path)
                rows.append(f"{path},{person},{kind},{camera}")
    (root / "labelled.csv").write_text("path,identity,modality,camera\n" + "\n".join(rows))
    torch.manual_seed(0)
    write_checkpoint(
        root / "last.ckpt", make_streams_differ(AGW(num_classes=3, backbone="test_resnet", pretrained=False))
    )
    return root


@pytest.fixture
def run(made, tmp_path, monkeypatch, capsys):
    """Run a command in a folder of its own that has the images; return what it prints."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        vireid([str(item) for item in arguments])
        return capsys.readouterr()

    return call


def refused(call, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_from_images_to_rank_lists_with_a_threshold(run, tmp_path):
    (tmp_path / "visible" / "bad.png").write_bytes(b"none")
    told = run(
        "embed", "last.ckpt", "visible", "--modality", "visible", "-o", "gallery.npz", "--quiet", "--device", "cpu"
    )
    assert "Embeddings of 40 images" in told.out
    assert "Left out, as they cannot be read: 1 of 41 images." in told.out
    assert "left out: The image file" in told.err
    gallery = Embeddings.load(tmp_path / "gallery.npz")
    assert len(gallery) == 40
    assert gallery.about["stage"] == "embed"

    run("embed", "last.ckpt", "labelled.csv", "-o", "validation.npz", "--quiet")
    told = run(
        "threshold", "gallery.npz", "--validation", "validation.npz", "--false-positive-rate", "0.1", "-o", "with.npz"
    )
    assert "Not in the gallery" in told.out
    stored = Embeddings.load(tmp_path / "with.npz")
    assert stored.about["thresholds"]["infrared"]["gallery_images"] == 40
    assert np.array_equal(stored.embedding, gallery.embedding)

    query = ("--query", "infrared/3_0.png", "infrared/4_1.png", "--modality", "ir")
    told = run("search", "--gallery", "with.npz", *query, "-k", "5", "--html", "page.html")
    assert told.out.count("Rank  Distance (cosine)") == 2
    assert max(map(len, told.out.splitlines()[:-1])) <= 80
    assert "threshold" in told.out
    assert (tmp_path / "page.html").read_text().count("<img ") == 12

    lines = run("search", "--gallery", "with.npz", *query, "-k", "5", "--json").out.splitlines()
    embedder = Embedder.from_checkpoint("last.ckpt")
    found = Gallery.load("with.npz").search(embedder.embed(["infrared/3_0.png", "infrared/4_1.png"], "infrared"), 5)
    assert [json.loads(line) for line in lines] == list(found.to_dicts())

    pytest.importorskip("faiss")
    assert "% of the exact search's first 10 ranks" in run("index", "with.npz", "-o", "index.npz", "--recall", "1").out
    again = run("search", "--gallery", "with.npz", *query, "-k", "5", "--json", "--index", "index.npz").out.splitlines()
    assert [json.loads(line)["results"][0] for line in again] == [json.loads(line)["results"][0] for line in lines]


def test_the_threshold_is_stored_in_place_where_that_is_asked_for(run, tmp_path):
    run("embed", "last.ckpt", "labelled.csv", "-o", "all.npz", "--quiet")
    run("threshold", "all.npz", "--validation", "all.npz", "--false-positive-rate", "0.05", "--in-place")
    thresholds = Embeddings.load(tmp_path / "all.npz").about["thresholds"]
    assert thresholds["stated_rate"] == 0.05
    assert {"visible", "infrared"} <= set(thresholds)


def test_a_gallery_of_both_modalities_is_searched_among_one(run):
    run("embed", "last.ckpt", "labelled.csv", "-o", "all.npz", "--quiet")
    search = ("search", "--gallery", "all.npz", "--query", "infrared/0_0.png", "--modality", "ir", "--json")
    (first, *_) = json.loads(run(*search).out)["results"]
    assert (first["path"], round(first["distance"], 4)) == ("infrared/0_0.png", 0)  # the query itself
    rows = json.loads(run(*search, "--among", "rgb").out)["results"]
    assert {row["modality"] for row in rows} == {"visible"}


def test_bad_input_is_told_in_one_sentence(run, tmp_path, capsys):
    images = ("--modality", "ir", "--query")
    run("embed", "last.ckpt", "visible", "--modality", "rgb", "-o", "gallery.npz", "--quiet")
    search = ("search", "--gallery", "gallery.npz")
    embed = ("embed", "last.ckpt", "visible")

    assert "gallery.npz exists and is never overwritten" in refused(
        run, capsys, *embed, "--modality", "rgb", "-o", "gallery.npz"
    )
    assert "give it a name that ends with .npz" in refused(
        run, capsys, *embed, "--modality", "rgb", "-o", "gallery.txt"
    )
    assert "'x-ray' is unknown; give one of visible" in refused(
        run, capsys, *embed, "--modality", "x-ray", "-o", "b.npz"
    )
    assert "The modality of visible is not given" in refused(run, capsys, *embed, "-o", "b.npz")
    assert "no checkpoint at none.ckpt" in refused(
        run, capsys, "embed", "none.ckpt", "visible", "--modality", "ir", "-o", "b.npz"
    )
    assert "No such file" in refused(run, capsys, *search, *images, "infrared/none.png")
    assert "None of the 1 images can be read. The image file" in refused(run, capsys, *search, *images, "labelled.txt")
    assert "-k is 0" in refused(run, capsys, *search, *images, "infrared/0_0.png", "-k", "0")
    assert "was embedded for the distance cosine, not euclidean" in refused(
        run, capsys, *search, *images, "infrared/0_0.png", "--distance", "euclidean"
    )
    torch.manual_seed(1)
    write_checkpoint(tmp_path / "other.ckpt", AGW(num_classes=3, backbone="test_resnet", pretrained=False))
    assert "embed both with the same checkpoint" in refused(
        run, capsys, *search, *images, "infrared/0_0.png", "--checkpoint", "other.ckpt"
    )
    assert "have no identity" in refused(
        run, capsys, "threshold", "gallery.npz", "--validation", "gallery.npz", "-o", "c.npz"
    )
    assert not (tmp_path / "b.npz").exists()
    assert not (tmp_path / "c.npz").exists()


def test_a_method_of_ones_own_is_named(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_search_method.py").write_text(
        "from vireid_lightning.methods import AGW\n\nclass Mine(AGW):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_search_method import Mine

    write_checkpoint(tmp_path / "mine.ckpt", Mine(num_classes=3, backbone="test_resnet", pretrained=False))
    embed = ("embed", "mine.ckpt", "visible", "--modality", "rgb", "-o", "mine.npz", "--quiet")
    assert "none of this package's" in refused(run, capsys, *embed)
    assert "'Mine' names no module" in refused(run, capsys, *embed, "--method", "Mine")
    run(*embed, "--method", "my_search_method.Mine")
    assert Embeddings.load(tmp_path / "mine.npz").about["method"] == "Mine"


@pytest.mark.slow
def test_export_by_the_command(run, tmp_path, capsys):
    told = run("export", "last.ckpt", "--format", "torchscript", "--images", "infrared/0_0.png")
    assert told.out.count("Largest difference from PyTorch on the") == 3
    assert "Written to last.pt (" in told.out
    assert (tmp_path / "last.pt").is_file()
    assert "last.pt exists and is never overwritten" in refused(
        run, capsys, "export", "last.ckpt", "--format", "torchscript"
    )
    assert "ends with .onnx" in refused(run, capsys, "export", "last.ckpt", "-o", "a.pt")
