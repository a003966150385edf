"""The two commands as a user calls them: help, hand-over, and bad input in one sentence with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vireid_lightning.cli import lightning as cli
from vireid_lightning.cli import vireid as tools

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("module", ["vireid_lightning", "vireid_lightning.cli.vireid"])
def test_help_does_not_import_torch(module):
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('{module}', run_name='__main__');"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], [], ["-h"]])
def test_help_names_every_subcommand(arguments, capsys):
    cli.main(arguments)
    text = capsys.readouterr().out
    assert all(name in text for name in cli.SUBCOMMANDS)
    tools.main(arguments)
    text = capsys.readouterr().out
    assert all(name in text for name in tools.TOOLS)


def test_a_foreign_subcommand_without_lightning_sdk(capsys, monkeypatch):
    def absent(name):
        raise cli.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cli.importlib.metadata, "distribution", absent)
    with pytest.raises(SystemExit) as stop:
        cli.main(["fti"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Did you mean 'fit'?" in error
    assert "lightning-sdk" in error


def test_a_foreign_subcommand_goes_to_lightning_sdk(monkeypatch):
    called = []

    class Script:
        group, name = "console_scripts", "lightning"

        def load(self):
            return lambda: called.append(True)

    class Distribution:
        entry_points = (Script(),)

    monkeypatch.setattr(cli.importlib.metadata, "distribution", lambda name: Distribution())
    cli.main(["login"])
    assert called == [True]


def test_an_unknown_tool(capsys):
    with pytest.raises(SystemExit) as stop:
        tools.main(["evalute"])
    assert stop.value.code == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err


def fail(capsys, *arguments: str) -> str:
    """Run ``lightning`` on input that it must refuse and return its one sentence."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_bad_input_has_no_traceback(tmp_path):
    command = [sys.executable, "-m", "vireid_lightning", "fit", "--model", "MPANet", "--data.dataset", "SYSUMM01"]
    command += ["--data.dataset.root", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: SYSU-MM01: the folder ")


BASE = ("fit", "--model", "MPANet", "--data.dataset", "SYSUMM01")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "--config", "nope.yaml"], "There is no config file"),
        ([*BASE, "--data.dataset.root", "nowhere"], "nowhere"),
        (["fit", "--model", "MPAnet", "--data.dataset", "SYSUMM01"], "Did you mean 'MPANet'?"),
        (["fit", "--model", "MPANet", "--data.dataset", "SYSUM01"], "Did you mean 'SYSUMM01'?"),
        ([*BASE, "--data.dataset.root", ".", "--model.partz", "3"], "Did you mean 'parts'?"),
        ([*BASE, "--data.dataset.root", ".", "--model.optimization.lrr", "3"], "Did you mean 'lr'?"),
        ([*BASE, "--data.dataset.root", ".", "--data.image_sise", "[3, 4]"], "Did you mean 'image_size'?"),
        (BASE, "root"),
    ],
)
def test_a_config_with_a_mistake(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in fail(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {class_path: MPANet}", "Did you mean 'model'?"),
        ("model: {class_path: MPANet, init_args: {margn: 1}}", "Did you mean 'margin'?"),
        ("model: {class_path: MPANett}", "Did you mean 'MPANet'?"),
        ("trainer: {max_epoch: 3}", "Did you mean 'max_epochs'?"),
        ("trainer: {max_epochs: ten}", "The setting 'trainer.max_epochs' is ten; give a value of type int."),
        ("data: {eval_batch_size: many}", "The setting 'data.eval_batch_size' is many; give a value of type int."),
        ("trainer: {callbacks: [{class_path: ModelCheckpont}]}", "Did you mean 'ModelCheckpoint'?"),
        ("model: [", "config"),
    ],
)
def test_a_config_file_with_a_mistake(text, expected, capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8")
    assert expected in fail(capsys, "fit", "--config", str(config))


def test_ci_runs_the_commands_of_the_readme():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in readme if line.startswith("pip install -e")]
    assert commands == [
        "pip install -e . && lightning fit --config experiments/quickstart.yaml",
        "pip install -e '.[test]' && pytest",
    ]
