"""Configs that have a setting at its former place are read as if they had it at its place of today."""

from __future__ import annotations

import pytest
import yaml
from layout_files import write_plan

from vireid_lightning.cli import lightning
from vireid_lightning.cli.moved_keys import MOVED_KEYS, move_keys
from vireid_lightning.data import CrossModalityDataModule
from vireid_lightning.data.synthetic import layouts


def config(path: str = "CMAM", **sections) -> dict:
    return {"model": {"class_path": path, "init_args": {"source_labels": True, "eps": 0.4}}, **sections}


@pytest.mark.parametrize("path", ["CMAM", "vireid_lightning.methods.CMAM"])
def test_a_setting_moves_to_its_place(path):
    source = {"identities_per_batch": 4}
    assert move_keys(config(path, data={"seed": 1, "source": source})) == {
        "model": {"class_path": path, "init_args": {"eps": 0.4}},
        "data": {"seed": 1, "source": {"identities_per_batch": 4, "labels": True}},
    }


def test_a_setting_at_both_places_is_that_of_today():
    assert move_keys(config(data={"source": {"labels": False}}))["data"] == {"source": {"labels": False}}


def test_a_config_without_the_section_gets_it_where_it_says_something():
    assert move_keys(config())["data"] == {"source": {"labels": True}}
    off = config()
    off["model"]["init_args"]["source_labels"] = False
    assert move_keys(off) == {"model": {"class_path": "CMAM", "init_args": {"eps": 0.4}}}
    # No source, no labels of it.
    assert move_keys(config(data={"source": None}))["data"] == {"source": None}


@pytest.mark.parametrize("content", [None, "text", 3, ["a"], {}, {"model": None}, {"model": "CMAM"}, {"a": {"b": 1}}])
def test_what_has_no_moved_setting_stays(content):
    assert move_keys(content) == content


def test_a_users_own_method_may_have_such_a_setting():
    own = config("my_method.MyMethod")
    assert move_keys(own) == config("my_method.MyMethod")


def test_no_place_of_today_is_a_former_one():
    assert not set(MOVED_KEYS) & {place.rsplit(".", 1)[-1] for place in MOVED_KEYS.values()}


@pytest.fixture
def old_config(tmp_path):
    """A config of two epochs of CMAM's first stage, as it was written before the setting moved."""
    target = write_plan(layouts.plan_sysu_mm01(train=4, val=3, test=4, images_per_camera=2), tmp_path / "target")
    source = write_plan(layouts.plan_msmt17(train=4, test=3, images_per_identity=4), tmp_path / "source")
    content = {
        "model": {
            "class_path": "CMAM",
            "init_args": {
                "backbone": "test_resnet",
                "pretrained": False,
                "source_labels": True,
                "source": {"steps": 1, "kl_weights": [0.1]},
                "target": None,
            },
        },
        "data": {
            "dataset": {"class_path": "SYSUMM01", "init_args": {"root": str(target)}},
            "source": {
                "dataset": {"class_path": "MSMT17", "init_args": {"root": str(source)}},
                "identities_per_batch": 2,
                "images_per_identity": 2,
            },
            "identities_per_batch": 2,
            "images_per_modality": 2,
            "steps_per_epoch": 1,
            "image_size": [64, 32],
            "num_workers": 0,
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "logger": [{"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": "old"}}],
        },
        "test_after_fit": False,
    }
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.slow
def test_an_old_config_and_what_its_run_saves_still_run(old_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lightning(["fit", "--config", str(old_config)])
    saved = tmp_path / "runs/old/version_0/config.yaml"
    written = yaml.safe_load(saved.read_text(encoding="utf-8"))
    assert written["data"]["source"]["labels"] is True
    assert "source_labels" not in written["model"]["init_args"]
    lightning(["fit", "--config", str(saved)])
    # The file that the code of before saved: all settings written out, classes by their full names.
    written["data"]["source"].pop("labels")
    written["model"]["init_args"]["source_labels"] = True
    assert written["model"]["class_path"].startswith("vireid_lightning.")
    saved.write_text(yaml.safe_dump(written), encoding="utf-8")
    labels = []
    setup = CrossModalityDataModule.setup
    monkeypatch.setattr(
        CrossModalityDataModule, "setup", lambda self, stage: labels.append(self.source.labels) or setup(self, stage)
    )
    lightning(["fit", "--config", str(saved)])
    assert set(labels) == {True}
    assert (tmp_path / "runs/old/version_2/metrics.csv").is_file()


def test_a_former_argument_on_the_command_line_is_told_its_new_place(capsys):
    with pytest.raises(SystemExit, match="2"):
        lightning(["fit", "--model", "CMAM", "--model.source_labels=true", "--data.dataset", "SYSUMM01"])
    assert "has moved; give --data.source.labels instead." in capsys.readouterr().err
