"""One config in one process, under torchrun and under srun; the files for clusters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from references.launched import launch, run_as_task

from vireid_lightning.cli import lightning

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
OVERLAYS = EXPERIMENTS / "overlays"

TINY = [
    *("--config", str(EXPERIMENTS / "quickstart_baseline.yaml"), "--trainer.logger", "false"),
    *("--model.init_args.backbone", "test_resnet", "--data.image_size", "[64, 32]", "--data.num_workers", "0"),
    *("--model.init_args.optimization", "{optimizer: sgd, lr: 0.0001, schedule: constant, warmup_epochs: 0}"),
    *("--data.identities_per_batch", "4", "--data.images_per_modality", "2", "--data.steps_per_epoch", "3"),
    *("--data.dataset.init_args.identities", "6", "--data.dataset.init_args.val_identities", "3"),
    *("--data.dataset.init_args.test_identities", "4", "--data.dataset.init_args.images", "2"),
    *("--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.precision", "32-true"),
    *("--trainer.enable_progress_bar", "false", "--test_after_fit", "false", "--trainer.accelerator", "cpu"),
]


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("**/last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def assert_trained_alike(weights, wanted):
    """Float32 sums in another order: up to 1e-5 after three steps at a rate of 1e-4.

    With losses and statistics of each process alone, weights differ by 3e-4. test_global_batch.py has float64.
    """
    for name, value in wanted.items():
        if "running" not in name:  # these are of the size of the features, not of the weights
            torch.testing.assert_close(
                weights[name], value, rtol=0, atol=5e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The arguments of a tiny experiment, and its weights after three steps in one process."""
    folder = tmp_path_factory.mktemp("clusters")
    arguments = [*TINY, "--data.dataset.init_args.root", str(folder / "synthetic")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # without a logger the config is saved in the current folder
        lightning(["fit", *arguments, "--trainer.default_root_dir", str(folder / "alone")])
        yield folder, arguments, read_weights(folder / "alone")


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains(alone):
    folder, arguments, weights = alone
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "vireid_lightning", "fit", *arguments]
    command += ["--config", str(OVERLAYS / "ddp.yaml"), "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    command += ["--trainer.default_root_dir", str(folder / "torchrun")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "8 images (2 identities) on each of 2 processes; losses compare all 16; batch normalisation over 16" in said
    assert_trained_alike(read_weights(folder / "torchrun"), weights)


@pytest.mark.slow
def test_srun_trains_what_one_process_trains(alone):
    folder, arguments, weights = alone
    arguments = ["fit", *arguments, "--config", str(OVERLAYS / "slurm.yaml"), "--trainer.devices", "2"]
    arguments += ["--trainer.default_root_dir", str(folder / "slurm")]
    assert launch(run_as_task, 2, folder, arguments) == [0, 0]
    assert_trained_alike(read_weights(folder / "slurm"), weights)


@pytest.mark.slow
def test_processes_that_are_gone_leave_paths_that_exist_and_scores_of_the_last_weights(alone, caplog):
    folder, arguments, _ = alone
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {folder / 'spawned'}, name: run}}}}"
    arguments = [*arguments, "--trainer.strategy", "ddp_fork", "--trainer.devices", "2", "--trainer.logger", logger]
    lightning(["fit", *arguments, "--test_after_fit", "true"])
    run = folder / "spawned" / "run" / "version_0"
    assert f"Checkpoints: {run / 'checkpoints'}\nLogs and config: {run}\n" in caplog.text
    assert json.loads((run / "checkpoints" / "results.json").read_text(encoding="utf-8"))["checkpoint_kind"] == "last"
    assert "train/loss" in (run / "metrics.csv").read_text(encoding="utf-8")
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", sorted(OVERLAYS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_overlay_fits_every_setting_that_there_is(overlay, capsys):
    arguments = ["--config", str(EXPERIMENTS / "agw_sysu.yaml"), "--config", str(overlay), "--print_config"]
    with pytest.raises(SystemExit) as stop:
        lightning(["fit", *arguments])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    for name, value in yaml.safe_load(overlay.read_text(encoding="utf-8"))["trainer"].items():
        assert name.endswith("+") or printed[name] == value


@pytest.mark.parametrize("script", ["slurm.sbatch", "torchrun.sh"])
def test_a_script_is_valid_and_names_files_that_exist(script):
    path = EXPERIMENTS / script
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert script == "slurm.sbatch" or os.access(path, os.X_OK)
    for word in path.read_text(encoding="utf-8").split():
        if word.startswith("experiments/"):
            assert (EXPERIMENTS.parent / word).is_file(), word
