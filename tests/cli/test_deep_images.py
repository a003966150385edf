"""A thermal camera of 14 bits in 16, from its files to a trained checkpoint: real command lines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from layout_files import write_plan

from vireid_lightning.cli import lightning
from vireid_lightning.data.synthetic.layouts import plan_manifest
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK

pytestmark = pytest.mark.slow

PERCENTILES = "--data.intensity_range.infrared_percentiles=[1, 99]"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A manifest whose infrared files are PNGs and TIFFs of 16 bits under names that say nothing of it."""
    root = write_plan(plan_manifest(train=2, val=0, test=2, images_per_camera=2), tmp_path_factory.mktemp("campus"))
    generator = np.random.default_rng(0)
    rows = [line.split(",") for line in (root / "manifest.csv").read_text().splitlines()[1:]]
    for number, row in enumerate(row for row in rows if row[2] == "infrared"):
        counts = generator.integers(7300, 8241, (24, 12), dtype=np.uint16)
        (root / row[0]).write_bytes(cv2.imencode((".png", ".tif")[number % 2], counts)[1].tobytes())
    return root


@pytest.fixture(scope="module")
def settings(root):
    return [
        "--model=Baseline",
        "--model.backbone=test_resnet",
        "--model.pretrained=false",
        "--data.dataset=Manifest",
        f"--data.dataset.root={root / 'manifest.csv'}",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=1",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = [PERCENTILES, f"--data.cache_dir={folder / 'cache'}", f"--trainer.default_root_dir={folder}"]
    lightning(["fit", *settings, *options])
    (path,) = folder.glob("**/last.ckpt")
    return path


def limits(path: Path) -> list[float]:
    return torch.load(path, weights_only=True)[BLOCK]["preprocessing"]["intensity_range"]["infrared"]


def run(capsys, *arguments: str) -> str:
    """Run a command that is refused; return its message."""
    with pytest.raises((SystemExit, VIReIDError)) as caught:
        lightning(list(arguments))
    return " ".join((capsys.readouterr().err + str(caught.value)).split())


def test_deep_images_without_a_range_are_refused(settings, tmp_path, capsys):
    message = run(capsys, "fit", *settings, f"--trainer.default_root_dir={tmp_path}")
    assert "has 16 bits, and nothing says which of its values are black and white" in message
    assert "--data.intensity_range.infrared_percentiles" in message


def test_the_measured_limits_stand_in_the_checkpoint(root, trained):
    rows = [line.split(",") for line in (root / "manifest.csv").read_text().splitlines()[1:]]
    paths = [row[0] for row in rows if row[2] == "infrared" and row[4] == "train"]
    values = np.stack([cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED) for path in paths])
    assert limits(trained) == np.percentile(values, (1, 99)).tolist()


def test_a_checkpoint_is_tested_with_its_own_limits_alone(settings, trained, tmp_path, capsys):
    test = ["test", *settings, f"--ckpt_path={trained}", f"--trainer.default_root_dir={tmp_path}"]
    message = run(capsys, *test, "--data.intensity_range.infrared=[0, 16383]")
    assert "was trained on images with intensity_range {'infrared': [7" in message
    (advice,) = [part for part in message.split("set ")[1:] if part.startswith("--data.intensity_range")]
    value = advice.split('"')[1]
    lightning([*test, f"--data.intensity_range={value}"])
    lightning([*test, PERCENTILES])
    message = run(capsys, *test)
    assert "but the data's have intensity_range None; set --data.intensity_range" in message
