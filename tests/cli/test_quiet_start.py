"""What a real run prints, in a terminal of 80 columns: nothing of other packages, whole scores, lines of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vireid_lightning.cli.quiet import silence_other_packages

CONFIG = Path(__file__).resolve().parents[2] / "experiments" / "quickstart.yaml"
COUNTS = ("identities=8", "val_identities=2", "test_identities=2", "images=2", "image_size=[32, 16]")
TINY = [
    *(f"--data.dataset.init_args.{count}" for count in COUNTS),
    "--model.init_args.backbone=test_resnet",
    "--data.image_size=[64, 32]",
    "--data.num_workers=0",
    "--data.identities_per_batch=2",
    "--data.images_per_modality=2",
    "--data.steps_per_epoch=2",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
]

#: Words of what must not be said.
NOISE = ("Tip", "litlogger", "deprecat", "LeafSpec", "FLOPs", "model summary", "TPU", "logging interval", "Params")


def fit(folder, *more):
    """Run ``lightning fit`` as a user does, with output that says it is a terminal of 80 columns to rich."""
    environment = {**os.environ, "COLUMNS": "80", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "TERM": "xterm"}
    environment.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "vireid_lightning", "fit", "--config", str(CONFIG), *TINY, *more]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_says_what_it_does_and_nothing_else(tmp_path):
    done = fit(tmp_path)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert [word for word in NOISE if word in told] == []
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    lines = re.split(r"[\n\r]", plain)
    titles = [line for line in lines if "Synthetic: MPANet, epoch 1" in line]
    assert len(titles) == 1
    assert titles[0].startswith("Synthetic: MPANet")  # on a line of its own
    # Every score of the file stands in the table, whole, within 80 columns.
    (results,) = tmp_path.rglob("results.json")
    for row in json.loads(results.read_text())["results"]:
        (line,) = (line for line in lines if line.strip().startswith(f"{row['protocol']} "))
        assert line.split()[1:] == [f"{score:.2f}" for score in row["scores"].values()]
        assert len(line.rstrip()) <= 80
    # The loss and the scores of the validation stand in the line of the bar.
    assert any(re.search(r"Epoch 0/0 .* 2/2 .* loss: \S+ rank1: \S+ mAP: \S+", line) for line in lines)


@pytest.mark.slow
def test_lightnings_own_table_can_be_turned_on(tmp_path):
    done = fit(tmp_path, "--trainer.enable_model_summary=true", "--trainer.enable_progress_bar=false")
    assert done.returncode == 0, done.stderr
    assert "FLOPs" in done.stdout + done.stderr
    assert "Epoch 0/0" not in done.stdout


@pytest.mark.slow
def test_a_progress_bar_of_ones_own_stays(tmp_path):
    done = fit(tmp_path, "--trainer.callbacks+=TQDMProgressBar")
    assert done.returncode == 0, done.stderr
    assert "it/s" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_start_that_fails_leaves_no_empty_folder_and_an_earlier_run_stays(tmp_path):
    earlier = tmp_path / "runs/quickstart/version_0"
    earlier.mkdir(parents=True)
    (earlier / "metrics.csv").write_text("epoch\n")
    done = fit(tmp_path, "--data.identities_per_batch=9")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: identities_per_batch is 9")
    assert [path.name for path in earlier.parent.iterdir()] == ["version_0"]
    assert (earlier / "metrics.csv").read_text() == "epoch\n"


def test_other_warnings_are_told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with silence_other_packages():
            warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use another.", FutureWarning, stacklevel=1)
            warnings.warn("2 training images could not be decoded", UserWarning, stacklevel=1)
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)
    assert [str(item.message)[:3] for item in caught] == ["2 t", "`is"]
