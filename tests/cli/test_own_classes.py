"""A method and a dataset of the user's own, in files of the current folder, by the installed commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from layout_files import write_plan
from references.refusal import refuse

from vireid_lightning.cli import lightning
from vireid_lightning.data.synthetic import layouts
from vireid_lightning.methods import load_method

PAGE = Path(__file__).resolve().parents[2] / "docs/extend.md"
SCRIPT = Path(sys.executable).with_name("lightning")

#: A dataset as a user may write one: that of the package with another validation.
DATASET = '''
from vireid_lightning.data import SYSUMM01


class MyData(SYSUMM01):
    """My own cameras.

    Args:
        root: Folder of the images.
        note: Anything.
    """

    def __init__(self, root: str, note: str = "") -> None:
        super().__init__(root)
        self.note = note
'''


#: A network as a user may write one.
NETWORK = """
from torch import nn


class MyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 8, 4), (8, 8, 1), (8, 16, 2), (16, 24, 2), (24, 32, 1)]
        self.stages = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in sizes)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the example method of the page on extending, a dataset, files that are none, and images."""
    folder = tmp_path_factory.mktemp("project")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (method,) = (block for block in blocks if "class MyMethod" in block)
    files = {
        "my_method": method + "\n\nclass Unfinished(ReIDModule):\n    pass\n\n\nclass Other:\n    pass\n",
        "my_data": DATASET,
        "my_network": NETWORK,
        "torch": "raise RuntimeError('this file hides an installed package')",
        "broken": "import a_package_that_nobody_has",
        "failing": "raise RuntimeError('no such luck')",
        "unreadable": "def method(:",
    }
    for name, code in files.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    write_plan(layouts.plan_sysu_mm01(train=4, val=3, test=4, images_per_camera=2), folder / "images")
    return folder


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Call the console script in the folder; only the script itself may put the folder on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


DATA = ["--data.dataset=my_data.MyData", "--data.dataset.root=images"]
TINY = [
    *DATA,
    "--data.image_size=[64, 32]",
    "--data.num_workers=0",
    "--data.identities_per_batch=2",
    "--data.images_per_modality=2",
    "--data.steps_per_epoch=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_epochs=1",
]
LOGGER = json.dumps([{"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "run"}}])


@pytest.mark.slow
def test_a_method_and_a_dataset_in_the_current_folder(folder, monkeypatch, capsys):
    model = ["--model=my_method.MyMethod", "--model.backbone=test_resnet", "--model.pretrained=false"]
    fit = call(folder, "fit", *model, *TINY, f"--trainer.logger={LOGGER}")
    assert fit.returncode == 0, fit.stdout + fit.stderr
    run = folder / "run/version_0"
    checkpoint = run / "checkpoints/last.ckpt"
    results = json.loads((run / "checkpoints/results.json").read_text(encoding="utf-8"))
    assert results["method"] == "MyMethod"

    # By the config that the run saved; the networks' shape comes from the checkpoint.
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["class_path"] == "my_method.MyMethod"
    monkeypatch.chdir(folder)
    lightning(["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={checkpoint}"])
    again = json.loads((run / "checkpoints/results.json").read_text(encoding="utf-8"))
    assert (run / "checkpoints/results_1.json").is_file()
    assert again["results"] == results["results"]

    # A checkpoint imports nothing: the config names the class, and it must be the checkpoint's.
    error = refuse(capsys, "test", "--model=Baseline", *TINY, f"--ckpt_path={checkpoint}")
    assert "holds MyMethod, but the config's model is Baseline" in error

    sys.path.append(str(folder))
    try:
        from my_method import MyMethod
    finally:
        sys.path.remove(str(folder))
    assert isinstance(load_method(checkpoint, method=MyMethod), MyMethod)


@pytest.mark.slow
def test_a_backbone_in_the_current_folder(folder, monkeypatch, capsys):
    model = ["--model=Baseline", "--model.backbone=my_network.MyNetwork", "--model.pretrained=false"]
    monkeypatch.chdir(folder)
    lightning(["fit", *model, *TINY, f"--trainer.logger={LOGGER.replace('run', 'backbone')}"])
    run = folder / "backbone/version_0"
    checkpoint = run / "checkpoints/last.ckpt"
    results = json.loads((run / "checkpoints/results.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["init_args"]["backbone"] == "my_network.MyNetwork"
    lightning(["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={checkpoint}"])
    again = json.loads((run / "checkpoints/results.json").read_text(encoding="utf-8"))
    assert again["results"] == results["results"]

    # A checkpoint imports nothing: the config names the class, and it must be the checkpoint's.
    error = refuse(capsys, "test", "--model=Baseline", *TINY, f"--ckpt_path={checkpoint}")
    assert "holds the backbone 'my_network.MyNetwork', which is none of timm's" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model=my_metod.MyMethod", *DATA], "There is no module 'my_metod'"),
        (["--model=my_metod.MyMethod", *DATA], "Did you mean 'my_method'?"),
        (["--model=my_method.MyMethd", *DATA], "no class 'MyMethd'. Did you mean 'MyMethod'?"),
        (["--model=my_method.Other", *DATA], "'my_method.Other' is no ReIDModule"),
        (
            ["--model=my_method.Unfinished", *DATA],
            "'my_method.Unfinished' cannot be built: it does not implement embed",
        ),
        (["--model=broken.MyMethod", *DATA], "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        (["--model=failing.MyMethod", *DATA], "'failing.MyMethod' cannot be imported: RuntimeError: no such luck"),
        (["--model=unreadable.MyMethod", *DATA], "SyntaxError"),
        (
            ["--model=my_method.MyMethod", "--model.margn=3", *DATA],
            "'margn' of MyMethod at 'model'. Did you mean 'margin'?",
        ),
        (["--model=my_method.MyMethod", "--model.margin=far", *DATA], "The setting 'model.margin' is far"),
        (["--model=Baseline", "--model.backbone=my_network.MyNetwrk", *DATA], "by the class's import path"),
        (["--model=Baseline", "--data.dataset=my_dat.MyData"], "Did you mean 'my_data'?"),
        (["--model=Baseline", "--data.dataset=my_data.MyDta"], "no class 'MyDta'. Did you mean 'MyData'?"),
        (["--model=Baseline", "--data.dataset=my_method.Other"], "'my_method.Other' is no ReIDDataset"),
        (["--model=Baseline", *DATA, "--data.dataset.nte=3"], "Did you mean 'note'?"),
    ],
)
def test_a_mistake_is_one_sentence(folder, arguments, expected, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert expected in refuse(capsys, "fit", *arguments)


def test_the_path_of_the_program_is_left_as_it_was(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = list(sys.path)
    with pytest.raises(SystemExit):
        lightning(["fit", "--model=my_method.Other", *DATA])
    assert sys.path == before
