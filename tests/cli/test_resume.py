"""Going on with a run from the command line: which run is found, what is refused, and what a signal leaves."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from references.refusal import refuse

from vireid_lightning.cli import lightning
from vireid_lightning.data.synthetic import layouts
from vireid_lightning.data.synthetic.drawing import write_plan
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint

CONFIG = Path(__file__).resolve().parents[2] / "experiments" / "baseline_regdb.yaml"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("regdb")
    write_plan(layouts.plan_regdb(identities=8, images_per_modality=3, trials=2), root, image_size=(32, 16), workers=1)
    return root


def settings(root, *more: str) -> list[str]:
    return [
        f"--config={CONFIG}",
        f"--data.dataset.init_args.root={root}",
        "--model.init_args.backbone=test_resnet",
        "--model.init_args.pretrained=false",
        "--data.image_size=[64, 32]",
        "--data.num_workers=0",
        "--data.identities_per_batch=2",
        "--data.images_per_modality=2",
        "--data.steps_per_epoch=3",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.enable_progress_bar=false",
        *more,
    ]


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    """A folder in which a run of two epochs has ended."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        lightning(["fit", *settings(root)])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, as the working folder."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def newest_results(folder: Path) -> dict:
    path = max(folder.rglob("results.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(path.read_text(encoding="utf-8"))


def test_last_and_best_are_those_of_the_newest_run(root, here, capsys):
    folder = here / "runs" / "baseline_regdb"
    older = folder / "version_7" / "checkpoints"
    shutil.copytree(folder / "version_0" / "checkpoints", older)
    os.utime(older / "last.ckpt", (1, 1))
    for subcommand in ("test", "validate", "predict"):
        lightning([subcommand, *settings(root), "--ckpt_path", "last"])
    assert newest_results(here)["checkpoint"] == str(folder / "version_0" / "checkpoints" / "last.ckpt")
    lightning(["test", *settings(root), "--ckpt_path=best"])
    best = newest_results(here)
    assert best["checkpoint"].endswith("version_0/checkpoints/best.ckpt")
    assert best["checkpoint_kind"] == "best"
    lightning(["fit", *settings(root, "--trainer.max_epochs=3"), "--ckpt_path", "last"])
    newest = max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    content = read_checkpoint(newest)
    assert (content["epoch"], content["global_step"]) == (2, 9)
    (change,) = content[BLOCK]["training"]["resumed"]
    assert change["changed"]["length"] == [{"max_epochs": 2, "max_steps": -1}, {"max_epochs": 3, "max_steps": -1}]
    assert "The run goes on with changes" in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", ["fit", "test", "validate", "predict"])
@pytest.mark.parametrize("wanted", ["last", "best"])
def test_a_run_that_is_not_there_is_an_error(root, tmp_path, monkeypatch, capsys, subcommand, wanted):
    monkeypatch.chdir(tmp_path)
    error = refuse(capsys, subcommand, *settings(root), "--ckpt_path", wanted)
    assert "runs/baseline_regdb/*/checkpoints/last.ckpt" in error
    assert not list(tmp_path.rglob("*.json"))


def test_untrained_weights_are_not_scored_unasked(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for subcommand in ("test", "validate", "predict"):
        assert "--allow-untrained" in refuse(capsys, subcommand, *settings(root))
    lightning(["validate", *settings(root), "--allow-untrained"])
    assert newest_results(tmp_path)["checkpoint"] is None


CHANGES = {
    "--model.init_args.margin=0.7": "model.init_args.margin is 0.3, and now it is 0.7",
    "--model.init_args.optimization.lr=0.5": "and now it is 0.5",
    "--model.init_args.optimization.optimizer=adamw": "optimization.optimizer is sgd, and now it is adamw",
    "--data.steps_per_epoch=4": "data.steps_per_epoch is 3, and now it is 4",
    "--data.images_per_modality=1": "data.images_per_modality is 2, and now it is 1",
    "--trainer.accumulate_grad_batches=3": "trainer.accumulate_grad_batches is 1, and now it is 3",
    "--seed_everything=7": "seed_everything is 0, and now it is 7",
    "--data.infrared_transforms=none": "data.visible_transforms or data.infrared_transforms",
    "--data.image_size=[32, 32]": "image_size",
    "--data.interpolation=bicubic": "interpolation",
    "--data.dataset.init_args.trial=2": "trial 1",
    "--data.on_bad_image=skip": "another list of images",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_would_be_another_one_does_not_go_on(root, here, capsys, change, tmp_path):
    if "skip" in change:  # a training image is damaged
        root = shutil.copytree(root, tmp_path / "damaged")
        listed = (root / "idx" / "train_visible_1.txt").read_text(encoding="utf-8").split()[0]
        (root / listed).write_bytes(b"")
    more = [change] if "=" in change else []
    assert CHANGES[change] in refuse(capsys, "fit", *settings(root, *more), "--ckpt_path", "last")


def test_a_lost_identity_is_refused(root, here, capsys, tmp_path):
    smaller = shutil.copytree(root, tmp_path / "smaller")
    for path in smaller.glob("idx/train_*_1.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        gone = lines[0].split()[1]
        path.write_text("\n".join(line for line in lines if line.split()[1] != gone) + "\n", encoding="utf-8")
    error = refuse(capsys, "fit", *settings(smaller), "--ckpt_path", "last")
    assert "trained on 4 identities, but the data has 3" in error
    assert "missing" in error


def test_weights_alone_are_no_run(root, here, capsys):
    path = next(here.rglob("last.ckpt"))
    content = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "optimizer_states"}, path)
    assert "holds weights alone" in refuse(capsys, "fit", *settings(root), "--ckpt_path", "last")


def start(folder, arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "vireid_lightning", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CONFIG.parents[1]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal's Ctrl-C, the signal goes to loading processes too
    )


def wait_for_an_epoch(folder, process) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.rglob("last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_a_signal_to_all_processes_saves_and_tells_the_command_that_goes_on(root, tmp_path):
    number = signal.SIGINT
    more = ["--trainer.max_epochs=500", "--data.num_workers=1", "--trainer.check_val_every_n_epoch=100"]
    process = start(tmp_path, ["fit", *settings(root, *more)])
    wait_for_an_epoch(tmp_path, process)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    path = next(tmp_path.rglob("last.ckpt"))
    assert not list(tmp_path.rglob("*.part"))
    *_, said, command = error.splitlines()
    assert said == f"Stopped by {signal.Signals(number).name}. The run goes on with"
    program, *arguments = shlex.split(command)
    assert program == "lightning"
    assert arguments[-2:] == ["--ckpt_path", str(path.relative_to(tmp_path))]
    epochs = read_checkpoint(path)["global_step"] // 3 + 2
    done = start(tmp_path, [*arguments, f"--trainer.max_epochs={epochs}"])
    _, error = done.communicate(timeout=120)
    assert done.returncode == 0, error
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    assert read_checkpoint(newest)["global_step"] == 3 * epochs


def test_a_requeued_job_goes_on_and_no_other_job_does(root, tmp_path, monkeypatch):
    """With SLURM's variables and a `scontrol` that notes what it was asked for."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n", encoding="utf-8")
    scontrol.chmod(0o755)
    job = {
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        **{"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"},
    }
    more = ["--trainer.max_epochs=500", "--trainer.check_val_every_n_epoch=100"]
    process = start(tmp_path, ["fit", *settings(root, *more)], **job)
    wait_for_an_epoch(tmp_path, process)
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, error
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "requeue 4711\n"
    (path,) = tmp_path.rglob("*.ckpt")  # in the run's own folder
    stopped = read_checkpoint(path)["global_step"]

    monkeypatch.chdir(tmp_path)
    for name, value in {**job, "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    epochs = f"--trainer.max_epochs={stopped // 3 + 1}"
    lightning(["fit", *settings(root, *more, epochs)])
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    content = read_checkpoint(newest)
    assert newest != path
    assert content["global_step"] == 3 * (stopped // 3 + 1)
    assert content[BLOCK]["training"]["resumed"][0]["step"] == stopped
    monkeypatch.setenv("SLURM_JOB_ID", "4712")  # another job of the same config
    lightning(["fit", *settings(root, "--trainer.max_epochs=1")])
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    assert read_checkpoint(newest)["global_step"] == 3


def test_lightnings_own_requeue_file_is_not_picked_up(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    for name, value in {"JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    error = refuse(capsys, "fit", *settings(root))
    assert "hpc_ckpt_1.ckpt is a file that Lightning would go on from" in error
