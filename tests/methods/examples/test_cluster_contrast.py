"""A method with pseudo labels and a memory, written as a user would: trained from the command line, killed, resumed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layout_files import write_plan

from vireid_lightning.data.synthetic import layouts
from vireid_lightning.methods import load_method
from vireid_lightning.methods.checkpoint import read_checkpoint

FILE = Path(__file__).with_name("cluster_contrast.py")
EPOCHS = 4
SIZE = (64, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny SYSU-MM01 whose people wear different colours: random weights tell some of them apart."""
    plan = layouts.plan_sysu_mm01(train=6, val=3, test=4, images_per_camera=3)
    root = write_plan(plan, tmp_path_factory.mktemp("data") / "SYSU-MM01")
    generator = np.random.default_rng(0)
    colours: dict[str, np.ndarray] = {}
    for image in plan.images:
        person = Path(image.path).parent.name
        blocks = colours.setdefault(person, generator.integers(0, 200, (6, 3, 3)))
        pixels = cv2.resize(blocks.astype(np.uint8), (32, 64), interpolation=cv2.INTER_NEAREST)
        noise = generator.integers(0, 55, pixels.shape, dtype=np.uint8)
        cv2.imwrite(str(root / image.path), pixels + noise)
    return root


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with the file of the method in it."""
    shutil.copy(FILE, tmp_path)
    return tmp_path


def command(root: Path, name: str, *arguments: str) -> list[str]:
    logger = json.dumps([{"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": name}}])
    return [
        *(sys.executable, "-m", "vireid_lightning", "fit"),
        "--model=cluster_contrast.ClusterContrast",
        *("--model.backbone=test_resnet", "--model.pretrained=false", "--model.eps=0.6", "--model.min_samples=2"),
        *("--model.k1=4", "--model.k2=2"),
        *("--data.dataset=SYSUMM01", f"--data.dataset.root={root}", f"--data.image_size={list(SIZE)}"),
        *("--data.num_workers=1", "--data.identities_per_batch=2", "--data.images_per_modality=2"),
        "--data.steps_per_epoch=2",
        *(f"--trainer.max_epochs={EPOCHS}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        f"--trainer.logger={logger}",
        *arguments,
    ]


def last(folder: Path, name: str) -> Path:
    return folder / "runs" / name / "version_0" / "checkpoints" / "last.ckpt"


def run(folder: Path, root: Path, name: str, *arguments: str) -> Path:
    """Train to the end and return the last checkpoint."""
    done = subprocess.run(
        command(root, name, *arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return last(folder, name)


def kill_after_an_epoch(folder: Path, root: Path, name: str) -> Path:
    """Train, kill the process once an epoch's checkpoint is there, and return it."""
    with Path(folder, "killed.log").open("w") as log:
        process = subprocess.Popen(command(root, name), cwd=folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 200
        while not last(folder, name).is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, Path(folder, "killed.log").read_text()
    return last(folder, name)


@pytest.mark.long
def test_a_killed_run_is_resumed_and_ends_with_the_weights_of_one_that_was_not(folder, root):
    whole = read_checkpoint(run(folder, root, "whole", "--test_after_fit=false"))
    killed = kill_after_an_epoch(folder, root, "killed")
    stopped = read_checkpoint(killed)
    assert stopped["epoch"] < EPOCHS - 1
    resumed = run(folder, root, "resumed", f"--ckpt_path={killed}")
    weights = read_checkpoint(resumed)["state_dict"]
    assert whole["state_dict"].keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in whole["state_dict"].items())
    assert not all(torch.equal(value, stopped["state_dict"][name]) for name, value in weights.items())
    # The command line scores the whole table with the user's class, and it is rebuilt from its checkpoint.
    results = json.loads((resumed.parent / "results.json").read_text(encoding="utf-8"))
    assert results["method"] == "ClusterContrast"
    module = load_method(resumed, method=load_class())
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def load_class():
    """The user's class, from its file."""
    spec = importlib.util.spec_from_file_location("cluster_contrast", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClusterContrast


def test_its_loss_is_infonce_with_the_memory():
    torch.manual_seed(0)
    module = load_class()(backbone="test_resnet", pretrained=False).eval()
    labels = torch.tensor([2, 0, 2, 1])
    batch = {"image": torch.randn(4, 3, *SIZE), "modality": torch.tensor([0, 0, 1, 1]), "identity": labels}
    module.memory = F.normalize(torch.randn(3, module.backbone.channels[-1]), dim=1)
    before = module.memory.clone()
    z = module.embed(batch["image"], batch["modality"]).detach()
    similarity = z @ before.T / 0.05
    expected = sum(similarity[row].logsumexp(0) - similarity[row, label] for row, label in enumerate(labels)) / 4
    torch.testing.assert_close(module.losses(batch)["contrast"], expected)
    assert torch.equal(module.memory, before)


def test_it_is_short():
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) < 120
