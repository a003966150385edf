"""The two commands as a user calls them: help, hand-over, and bad input in one sentence with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from references.refusal import refuse

from vireid_lightning.cli import lightning, vireid

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", ["lightning", "vireid"])
def test_help_does_not_import_torch(command):
    code = (
        f"import sys; from vireid_lightning.cli import {command}; {command}(['--help']);"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_lightning_command():
    done = subprocess.run([sys.executable, "-m", "vireid_lightning", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: lightning {fit,")


@pytest.mark.parametrize("command", [lightning, vireid])
@pytest.mark.parametrize("arguments", [["--help"], [], ["-h"]])
def test_help_names_every_subcommand(command, arguments, capsys):
    command(arguments)
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in command.subcommands)


def test_the_version_is_that_of_the_package(capsys):
    from vireid_lightning import __version__

    for command in (lightning, vireid):
        command(["--version"])
        assert capsys.readouterr().out == f"vireid-lightning {__version__}\n"


def test_every_tool_has_a_help_of_its_own(capsys):
    for name in vireid.subcommands:
        with pytest.raises(SystemExit) as stop:
            vireid([name, "--help"])
        assert stop.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: vireid {name} ")


def test_a_foreign_subcommand_without_lightning_sdk(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(SystemExit) as stop:
        lightning(["fti"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Did you mean 'fit'?" in error
    assert "lightning-sdk" in error


def test_a_foreign_subcommand_goes_to_lightning_sdk(monkeypatch):
    """And not to this package's own script, which has the same name."""
    called = []

    def script(package):
        return SimpleNamespace(dist=SimpleNamespace(name=package), load=lambda: lambda: called.append(package))

    def entry_points(*, group, name):
        assert (group, name) == ("console_scripts", "lightning")
        return [script("vireid-lightning"), script("lightning_sdk")]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    lightning(["login"])
    assert called == ["lightning_sdk"]


def test_an_unknown_tool(capsys):
    with pytest.raises(SystemExit) as stop:
        vireid(["evalute"])
    assert stop.value.code == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.slow
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
    assert expected in refuse(capsys, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {class_path: MPANet}", "Did you mean 'model'?"),
        ("model: {class_path: MPANet, init_args: {margn: 1}}", "Did you mean 'margin'?"),
        ("model: {class_path: MPANett}", "Did you mean 'MPANet'?"),
        ("trainer: {max_epoch: 3}", "Did you mean 'max_epochs'?"),
        ("trainer: {max_epochs: ten}", "The setting 'trainer.max_epochs' is ten; give a value of type int."),
        ("model: {class_path: MPANet, init_args: {margin: far}}", "'model.margin' is far; give a value of type float."),
        ("data: {eval_batch_size: many}", "The setting 'data.eval_batch_size' is many; give a value of type int."),
        ("trainer: {callbacks: [{class_path: ModelCheckpont}]}", "Did you mean 'ModelCheckpoint'?"),
        ("trainer: {callbacks: [{class_path: EarlyStopping, init_args: {montor: x}}]}", "no setting 'montor'"),
        ("trainer: {callbacks: [{class_path: vireid_lightning.methods.AGW}]}", "AGW' is no Callback"),
        ("model: {class_path: vireid_lightning.methods.MPANett}", "Did you mean 'MPANet'?"),
        ("data: {dataset: {class_path: vireid_lightning.data.SYSUM01}}", "Did you mean 'SYSUMM01'?"),
        (
            "data: {interpolation: nearest}",
            "'data.interpolation' is nearest; give one of bilinear, bicubic, lanczos, ",
        ),
        ("data: {interpolation: bilinaer}", "Did you mean 'bilinear'?"),
        ("data: {visible_transforms: agwe}", "'data.visible_transforms' is agwe; give one of none, agw, caj, "),
        (
            "model: {class_path: MPANet, init_args: {optimization: {optimizer: adamm}}}",
            "The setting 'model.optimization.optimizer' is adamm; give one of adam, adamw, sgd. Did you mean 'adam'?",
        ),
        ("retrieval: {distance: far}", "The setting 'retrieval.distance' is far; give one of cosine, euclidean."),
        ("model: [", "config"),
    ],
)
def test_a_config_file_with_a_mistake(text, expected, capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8")
    assert expected in refuse(capsys, "fit", "--config", str(config))


def test_ci_runs_the_commands_of_the_readme():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in readme if line.startswith("pip install -e")]
    assert commands == [
        "pip install -e . && lightning fit --config experiments/quickstart.yaml",
        "pip install -e '.[test]' && pytest",
    ]
