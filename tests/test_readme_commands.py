"""The README's commands run as they are written, on tiny data and with a tiny network where they train."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from layout_files import write_plan

from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs/measurements.md", REPOSITORY / "docs/experiments.md"]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
]


def list_commands(text: str) -> list[str]:
    return [command.strip() for line in text.splitlines() for command in line.split("&&")]


COMMANDS = [command for text in BLOCKS for command in list_commands(text)]

#: What makes a run of MPANet on SYSU-MM01 tiny; the rest of a command stays as it is.
TINY = [
    *("--model.backbone=test_resnet", "--model.pretrained=false", "--data.image_size=[64, 32]"),
    *("--data.num_workers=0", "--data.identities_per_batch=2", "--data.images_per_modality=2"),
    *("--data.steps_per_epoch=1", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"),
    *("--trainer.precision=32-true", "--trainer.enable_progress_bar=false"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that is a checkout in all that commands look for, with no dataset in it."""
    (tmp_path / "here").mkdir()
    for name in ("experiments", "tests"):
        (tmp_path / "here" / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VIREID_DATA", str(tmp_path / "datasets"))
    return tmp_path / "here"


def test_there_are_commands_of_every_kind():
    assert {command.split()[0] for command in COMMANDS} == {
        *("pip", "lightning", "vireid", "pytest", "export", "python", "wandb")
    }
    assert len([command for command in COMMANDS if command.startswith("lightning")]) > 5


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python ")])
def test_scripts_exist_with_their_options(command):
    script, *arguments = shlex.split(command)[1:]
    assert (REPOSITORY / script).is_file()
    options = {argument for argument in arguments if argument.startswith("--")}
    if options:
        done = subprocess.run(
            [sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert options <= set(re.findall(r"--[\w-]+", done.stdout))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("vireid ")])
def test_tools_take_their_arguments(command):
    name, *arguments = shlex.split(command)[1:]
    tool = importlib.import_module(f"vireid_lightning.cli.tools.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    tool.add_arguments(parser)
    parser.parse_args(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    # Methods of one's own are run by tests/cli/test_own_classes.py.
    sorted({c for c in COMMANDS if c.startswith("lightning ") and "my_method" not in c and "lightning_logs" not in c}),
)
def test_configs_and_their_arguments_parse(command, here, capsys):
    with pytest.raises(SystemExit) as end:
        lightning([*shlex.split(command)[1:], "--print_config"])
    assert end.value.code in (0, None)
    assert "class_path" in capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_for_sysu_mm01_run_one_after_the_other(here, tmp_path, capsys):
    plan = plan_sysu_mm01(train=4, val=3, test=4, images_per_camera=2)
    write_plan(plan, tmp_path / "datasets" / "SYSU-MM01")
    (commands,) = (text for text in BLOCKS if "export VIREID_DATA=" in text and "lightning fit" in text)
    for command in list_commands(commands):
        program, *arguments = shlex.split(command)
        if program == "vireid":
            vireid(arguments)
        elif program == "lightning":
            lightning([*arguments, *TINY])
    results = json.loads((here / "runs/mpanet_sysu/version_0/checkpoints/results.json").read_text(encoding="utf-8"))
    assert (results["dataset"], results["stage"]) == ("SYSU-MM01", "test")
    assert "all/single/official" in capsys.readouterr().out
