"""A checkpoint is scored on images prepared as in training, or the result says that it was not: real command lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from layout_files import write_plan
from lightning.pytorch import Trainer
from references.refusal import refuse

from vireid_lightning.callbacks import RetrievalMetrics, SaveEmbeddings
from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data import RegDB
from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.data.synthetic.layouts import plan_manifest, plan_regdb
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import load_method
from vireid_lightning.methods.checkpoint import BLOCK
from vireid_lightning.metrics import Embeddings

pytestmark = pytest.mark.slow

OTHER_SIZE = "--data.image_size=[48, 24]"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_plan(plan_regdb(identities=6, images_per_modality=2, trials=2), tmp_path_factory.mktemp("regdb"))


@pytest.fixture(scope="module")
def settings(root):
    return [
        "--model=Baseline",
        "--model.backbone=test_resnet",
        "--model.pretrained=false",
        "--data.dataset=RegDB",
        f"--data.dataset.root={root}",
        "--data.image_size=[64, 32]",
        "--data.interpolation=bicubic",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=1",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    lightning(["fit", *settings, f"--trainer.default_root_dir={folder}"])
    (path,) = folder.glob("**/last.ckpt")
    return path


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    """The checkpoint alone in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(trained.read_bytes())
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict", "fit"])
def test_other_preprocessing_is_refused_before_anything_is_read(subcommand, settings, copied, capsys):
    checkpoint = [f"--ckpt_path={copied}", "--data.cache_dir=cache"]
    error = refuse(capsys, subcommand, *settings, *checkpoint, OTHER_SIZE)
    assert "image_size [64, 32], but the data's have image_size [48, 24]" in error
    assert '--data.image_size "[64, 32]"' in error
    error = refuse(capsys, subcommand, *settings, *checkpoint, "--data.interpolation=lanczos")
    assert "interpolation bicubic, but the data's have interpolation lanczos" in error
    assert not Path("cache").exists()
    assert not list(copied.parent.glob("**/results*.json"))
    assert not list(copied.parent.glob("**/embeddings*.npz"))


def test_a_checkpoint_that_fits_is_scored_as_ever(settings, copied):
    lightning(["test", *settings, f"--ckpt_path={copied}"])
    assert json.loads(Path("results.json").read_text(encoding="utf-8"))["preprocessing_mismatch"] is False


def test_an_allowed_mismatch_is_marked_wherever_it_goes(settings, copied, root, capsys):
    shared = [*settings, f"--ckpt_path={copied}", OTHER_SIZE, "--allow-preprocessing-mismatch"]
    lightning(["test", *shared])
    assert [path.name for path in copied.parent.glob("results*")] == ["results_preprocessing_mismatch.json"]
    results = json.loads(Path("results_preprocessing_mismatch.json").read_text(encoding="utf-8"))
    assert results["preprocessing_mismatch"] is True
    assert "ON IMAGES PREPARED OTHERWISE THAN IN TRAINING" in capsys.readouterr().out
    lightning(["test", *shared, "--data.dataset.trial=2", "--allow-trial-mismatch"])
    assert Path("results_trial_mismatch_preprocessing_mismatch.json").is_file()

    lightning(["predict", *shared])
    (file,) = copied.parent.glob("**/embeddings.npz")
    assert Embeddings.load(file).about["preprocessing_mismatch"] is True
    vireid(["evaluate", str(file), "--dataset", "RegDB", "--root", str(root), "--output", "scores.json"])
    assert json.loads(Path("scores.json").read_text(encoding="utf-8"))["preprocessing_mismatch"] is True


def make_manifest(folder):
    return write_plan(plan_manifest(train=3, val=0, test=3, images_per_camera=2), folder) / "manifest.csv"


def test_another_split_of_the_same_dataset_is_refused_and_another_dataset_is_named(settings, copied, capsys):
    """Here RegDB's images trained: its list is changed by a file, and a manifest is another dataset."""
    content = torch.load(copied, weights_only=True)
    content[BLOCK]["dataset"]["fingerprint"] = "0123456789ab"
    torch.save(content, copied.with_name("other.ckpt"))
    error = refuse(capsys, "fit", *settings, "--ckpt_path=other.ckpt")
    assert "was trained on another list of images of RegDB (fingerprint 0123456789ab, now " in error
    content[BLOCK]["identities"] = [1, 2]
    torch.save(content, copied.with_name("other.ckpt"))
    assert "was trained on 2 identities" in refuse(capsys, "fit", *settings, "--ckpt_path=other.ckpt")
    for subcommand in ("test", "validate", "predict"):
        error = refuse(capsys, subcommand, *settings, "--ckpt_path=other.ckpt")
        assert "was trained on RegDB with fingerprint 0123456789ab and 2 training identities" in error
        assert "but the data is RegDB with fingerprint" in error
        assert "--allow-preprocessing-mismatch" in error
    lightning(["test", *settings, "--ckpt_path=other.ckpt", "--allow-preprocessing-mismatch"])
    results = json.loads(Path("results_dataset_mismatch.json").read_text(encoding="utf-8"))
    assert (results["dataset_mismatch"], results["preprocessing_mismatch"]) == (True, False)
    assert "BUT TRAINED ON ANOTHER LIST OF ITS IMAGES" in capsys.readouterr().out

    manifest = make_manifest(copied.parent / "campus")
    other = [f"--data.dataset.root={manifest}" if "root=" in item else item for item in settings]
    other = [item.replace("=RegDB", "=Manifest") for item in other]
    lightning(["test", *other, f"--ckpt_path={copied}"])
    assert "trained on RegDB" in " ".join(capsys.readouterr().out.split())
    results = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert (results["dataset"], results["trained_on_dataset"]) == ("Manifest", "RegDB")
    assert results["dataset_mismatch"] is False
    vireid(["compare", "results.json"])
    assert "trained on RegDB" in " ".join(capsys.readouterr().out.split())
    error = refuse(capsys, "fit", *other, f"--ckpt_path={copied}")
    assert "was trained on RegDB" in error
    assert "but the data is Manifest" in error


def test_a_checkpoint_of_the_former_resizer_is_scored_with_that_alone(settings, copied, capsys):
    content = torch.load(copied, weights_only=True)
    del content[BLOCK]["preprocessing"]["resizer"]
    torch.save(content, copied)
    arguments = ["test", *settings, f"--ckpt_path={copied}"]
    assert '--data.interpolation "opencv-bicubic"' in refuse(capsys, *arguments)
    lightning([*arguments, "--data.interpolation=opencv-bicubic"])
    assert json.loads(Path("results.json").read_text(encoding="utf-8"))["preprocessing_mismatch"] is False


@pytest.mark.parametrize("weights_only", [False, True])
def test_python_is_refused_too(copied, root, weights_only):
    """Lightning does not tell callbacks of a file that holds weights alone."""
    content = torch.load(copied, weights_only=True)
    if weights_only:
        content = {name: content[name] for name in content if name not in ("callbacks", "loops", "optimizer_states")}
        torch.save(content, copied)

    def build(size, interpolation="bicubic"):
        return CrossModalityDataModule(RegDB(root), image_size=size, interpolation=interpolation, num_workers=0)

    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    module = load_method(copied)
    trainer = Trainer(callbacks=[RetrievalMetrics(), SaveEmbeddings()], default_root_dir=copied.parent, **options)
    for _ in range(2):
        for stage in (trainer.test, trainer.validate, trainer.predict):
            with pytest.raises(VIReIDError, match="image_size"):
                stage(module, datamodule=build((48, 24)), ckpt_path=copied, weights_only=True)
            with pytest.raises(VIReIDError, match="interpolation"):
                stage(module, datamodule=build((64, 32), "bilinear"), ckpt_path=copied, weights_only=True)
        trainer.test(module, datamodule=build((64, 32)), ckpt_path=copied, weights_only=True, verbose=False)
        trainer.predict(module, datamodule=build((64, 32)), ckpt_path=copied, weights_only=True)
    allowed = Trainer(
        callbacks=[SaveEmbeddings(allow_preprocessing_mismatch=True)], default_root_dir=copied.parent, **options
    )
    allowed.predict(module, datamodule=build((48, 24)), ckpt_path=copied, weights_only=True)
    assert Embeddings.load(copied.parent / "embeddings.npz").about["preprocessing_mismatch"] is True
