from __future__ import annotations

import csv

import pytest

from vireid_lightning.cli import lightning
from vireid_lightning.cli.messages import explain_missing_package

SETTINGS = {
    "model": "Baseline", "model.backbone": "test_resnet", "model.pretrained": "false", "data.dataset": "Synthetic",
    "data.dataset.identities": 4, "data.dataset.val_identities": 2, "data.dataset.test_identities": 2,
    "data.dataset.images": 2, "data.image_size": "[32, 16]", "data.dataset.image_size": "[32, 16]",
    "data.steps_per_epoch": 2, "data.num_workers": 0, "data.identities_per_batch": 2, "data.images_per_modality": 2,
    "trainer.accelerator": "cpu", "trainer.max_epochs": 2, "trainer.log_every_n_steps": 1, "test_after_fit": "false",
    "model.optimization.schedule": "multistep", "model.optimization.milestones": "[1]", "model.optimization.lr": 0.01,
    "model.optimization.warmup_epochs": 0,
}  # fmt: skip


class Missing(str):
    """What Lightning holds of a package that is not installed."""

    def __bool__(self):
        return False


def fit(**more):
    lightning(["fit", *(f"--{name}={value}" for name, value in (SETTINGS | more).items())])


@pytest.mark.slow
def test_steps_and_the_learning_rate_are_logged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(**{"trainer.logger": "CSVLogger", "trainer.logger.save_dir": "runs", "trainer.logger.name": "it"})
    with (tmp_path / "runs" / "it" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))

    def read(name):
        return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]

    assert [step for step, _ in read("step/loss")] == [0, 1, 2, 3]
    steps = [value for _, value in read("step/loss")]
    assert [value for _, value in read("train/loss")] == pytest.approx([sum(steps[:2]) / 2, sum(steps[2:]) / 2])
    rates = [read(name) for name in rows[0] if name.startswith("lr-")]  # one for each group of parameters
    assert [(0, pytest.approx(0.01)), (2, pytest.approx(0.001))] in rates


@pytest.mark.slow
def test_a_run_without_loggers_logs_no_learning_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(**{"trainer.logger": "false", "trainer.max_epochs": 1})
    assert not list(tmp_path.rglob("metrics.csv"))


def test_a_logger_that_is_not_installed_is_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("tensorboard", "tensorboardX"):
        missing = Missing(f"Requirement '{name}' not met.")
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard._{name.upper()}_AVAILABLE", missing)
    with pytest.raises(SystemExit, match="2"):
        fit(**{"trainer.logger": "TensorBoardLogger", "trainer.logger.save_dir": "runs"})
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert "tensorboard" in error[-1]
    assert "install" in error[-1]
    assert not [line for line in error if "Traceback" in line]


@pytest.mark.parametrize(
    ("message", "name", "expected"),
    [
        (
            "Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either.\nRequirement "
            "'tensorboardX' not met. HINT: Try\nRequirement 'tensorboard' not met. HINT: Try",
            None,
            "needs the package tensorboard or tensorboardX, which is not installed; install it with `pip install tens",
        ),
        ("Requirement 'mlflow>=1.0.0' not met. HINT: Try running", None, "needs the package mlflow, which"),
        ("No module named 'nothing'", "nothing", "needs the package nothing, which"),
        ("Something\nelse.", None, "needs a package that is not installed: Something else."),
    ],
)
def test_packages_are_named(message, name, expected):
    assert expected in explain_missing_package(ModuleNotFoundError(message, name=name))
