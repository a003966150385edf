from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from references.fake_dataset import write_fake_dataset

from vireid_lightning.cli import vireid
from vireid_lightning.metrics import Embeddings

DATASET = "references.fake_dataset.FakeDataset"


@pytest.fixture
def root(tmp_path):
    """A dataset with the embeddings of its test images."""
    dataset = write_fake_dataset(tmp_path / "data")
    samples = dataset.samples("test")
    rows = np.random.default_rng(0).standard_normal((len(samples), 4)).astype(np.float32)
    labels = ([getattr(sample, name) for sample in samples] for name in ("identity", "camera", "modality", "path"))
    Embeddings(rows, *labels, about={"dataset": "Fake", "method": "Method", "epoch": 2}).save(
        tmp_path / "embeddings.npz"
    )
    return tmp_path


def call(root, *more, dataset=DATASET):
    chosen = ["--dataset", dataset] if dataset else []
    vireid(["report", str(root / "embeddings.npz"), "--root", str(root / "data"), *chosen, *map(str, more)])


def test_writes_a_page_beside_the_embeddings_and_keeps_the_earlier(root, capsys):
    call(root)
    page = (root / "report.html").read_text()
    assert "Fake: Method, epoch 2" in page
    assert "infrared to visible" in page
    assert "visible to infrared" in page
    assert "data-image" in page
    call(root, "--lists", 1)
    assert (root / "report_1.html").read_text() == page
    assert "the earlier one: report_1.html" in capsys.readouterr().out


def test_works_without_images(root):
    shutil.rmtree(root / "data" / "test")
    call(root, "--output", root / "other.html")
    assert "12 images of the rank lists are missing on disk" in (root / "other.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output", "page.txt"], "give the name of an .html file"),
        (["--max-mb", "0"], "--max-mb is 0.0; give a finite number above 0"),
        (["--max-mb", "0.001"], "without images, more than the 0.001"),
        (["--lists", "0"], "--lists is 0; give a whole number from 1"),
        (["--curves", "none.csv"], "none.csv cannot be read"),
        (["--metric", "hamming"], "distance 'hamming' is unknown"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(root, more, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(root, *more)
    assert message in capsys.readouterr().err
    assert not list(root.glob("*.html"))


def test_what_is_no_source_is_told(root, capsys):
    (root / "runs" / "version_0").mkdir(parents=True)
    (root / "runs" / "version_0" / "config.yaml").write_text("data: {dataset: {class_path: SYSUMM01}}")
    for arguments, message in (
        ([str(root)], "is no folder of a run; give the folder that holds config.yaml"),
        ([str(root / "runs")], "give one of its runs, such as"),
        ([str(root / "runs" / "version_0"), "--root", str(root / "data")], "SYSU"),
        ([str(root / "embeddings.npz")], "Give --root"),
        ([str(root / "embeddings.npz"), "--root", str(root)], "does not say which dataset it is of; give --dataset"),
        ([str(root / "none.npz"), "--root", str(root)], "does not exist"),
    ):
        with pytest.raises(SystemExit, match="2"):
            vireid(["report", *arguments])
        assert message in capsys.readouterr().err


def test_a_missing_package_is_told(root, capsys, monkeypatch):
    monkeypatch.setattr("vireid_lightning.report.requirements.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        call(root)
    assert "pip install 'vireid-lightning[report]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_embedded_and_keeps_its_config(tmp_path, monkeypatch, capfd):
    from vireid_lightning.cli import lightning

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings = {
        "model": "Baseline", "model.backbone": "test_resnet", "model.pretrained": "false", "data.dataset": "Synthetic",
        "data.dataset.identities": 4, "data.dataset.val_identities": 2, "data.dataset.test_identities": 3,
        "data.dataset.images": 2, "data.image_size": "[32, 16]", "data.dataset.image_size": "[32, 16]",
        "data.steps_per_epoch": 2, "data.num_workers": 0, "data.identities_per_batch": 2, "data.images_per_modality": 2,
        "trainer.max_epochs": 1, "trainer.accelerator": "cpu", "trainer.logger": "CSVLogger",
        "trainer.logger.save_dir": "runs", "trainer.logger.name": "it", "test_after_fit": "false",
    }  # fmt: skip
    lightning(["fit", *(f"--{name}={value}" for name, value in settings.items())])
    run = tmp_path / "runs" / "it" / "version_0"
    config = (run / "config.yaml").read_bytes()
    before = {path.name for path in run.iterdir()}
    for _ in range(2):
        vireid(["report", str(run), "--lists", "5"])
    assert (run / "config.yaml").read_bytes() == config
    assert {path.name for path in run.iterdir()} - before == {"embeddings_last.npz", "report.html", "report_1.html"}
    assert capfd.readouterr().out.count("Embeddings of") == 1  # made once
    page = (run / "report.html").read_text()
    assert "Synthetic: Baseline, epoch 1 (last checkpoint)" in page
    assert 'id="training"' in page
    assert "missing on disk" not in page
