"""The examples that search for settings run, offline and in small."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

import vireid_lightning.data
from vireid_lightning.cli import lightning
from vireid_lightning.data import Synthetic

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"identities": 8, "val_identities": 3, "test_identities": 2, "images": 2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*does not have many workers.*")
def test_an_optuna_study_goes_on_with_other_settings(tmp_path, monkeypatch, capsys):
    optuna = pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vireid_lightning.data, "Synthetic", lambda **_: Synthetic("synthetic", **SIZES))
    small = ["--trials=1", "--epochs=1", "--steps=1", "--backbone=test_resnet"]
    monkeypatch.setattr(sys, "argv", ["optuna_baseline.py", *small])
    for number in (1, 2):
        runpy.run_path(str(ROOT / "experiments" / "optuna_baseline.py"), run_name="__main__")
        assert f"Best of {number} trials" in capsys.readouterr().out
    backend = optuna.storages.journal.JournalFileBackend("runs/optuna_baseline/study.log")
    study = optuna.load_study(study_name="baseline", storage=optuna.storages.JournalStorage(backend))
    first, second = (trial.params for trial in study.trials)
    assert first != second
    assert all(0 < trial.value < 100 for trial in study.trials)


def draw(parameter: dict) -> object:
    """Return one of the values that a sweep may try."""
    return parameter["values"][-1] if "values" in parameter else parameter["max"]


@pytest.mark.slow
def test_a_sweeps_command_trains_and_logs_what_it_compares(tmp_path, monkeypatch):
    sweep = yaml.safe_load((ROOT / "experiments" / "sweeps" / "baseline.yaml").read_text(encoding="utf-8"))
    tried = {name: draw(parameter) for name, parameter in sweep["parameters"].items()}
    program, *arguments = sweep["command"]
    assert (program, sweep["program"]) == ("${program}", "lightning")
    assert arguments.pop() == "${args}"
    # What an agent does: the values as arguments; here with paths from the repository's root, and small.
    arguments = [re.sub(r"=(experiments/)", rf"={ROOT.as_posix()}/\1", word) for word in arguments]
    arguments += [f"--{name}={value}" for name, value in tried.items()]
    arguments += [f"--data.dataset.init_args.{name}={value}" for name, value in SIZES.items()]
    arguments += ["--model.init_args.backbone=test_resnet", "--data.num_workers=0", "--data.steps_per_epoch=1"]
    arguments += [
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.enable_progress_bar=false",
    ]
    monkeypatch.chdir(tmp_path)
    lightning(arguments)
    (run,) = tmp_path.glob("runs/quickstart_baseline/version_0")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    for name, value in tried.items():
        setting = config
        for part in name.split("."):
            setting = setting[part]
        assert setting == value
    assert sweep["metric"]["name"] in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert not (run / "checkpoints" / "results.json").exists()  # no trial is tested
    (written,) = tmp_path.glob("**/wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 0
