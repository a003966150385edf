"""The papers' settings stand in the constructors; experiments repeat them, and every difference is meant."""

from __future__ import annotations

import dataclasses
import inspect
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from vireid_lightning import methods
from vireid_lightning.data import Source

CONFIGS = [
    path
    for path in sorted((Path(__file__).resolve().parents[1] / "experiments").glob("*.yaml"))
    if not path.stem.startswith("quickstart")
]

#: (experiment, setting of its method) -> the value where it differs from the default, and why.
DIFFERENCES: dict[tuple[str, str], tuple[Any, str]] = {
    ("mpanet_regdb", "optimization.milestones"): ([110], "the authors' schedule for RegDB"),
    ("cmam_regdb", "target.dbscan_steps"): (0, "the authors use k-means alone on RegDB"),
    ("cmam_llcm", "target.clusters"): (713, "LLCM's number of training identities"),
    **{
        (f"mmgl_{dataset}", setting): difference
        for dataset in ("sysu", "regdb", "llcm")
        for setting, difference in {
            "permutation_weight": (36.0, "the squared error of the whole matrix, so that orders are learned"),
            "cycle_start": (50, "half of the epochs: more is recovered than with PCC from the start on"),
        }.items()
    },
}

#: (experiment, setting of its data or length) -> the value where it differs from the method's others, and why.
DATA_DIFFERENCES: dict[tuple[str, str], tuple[Any, str]] = {
    ("mpanet_regdb", "image_size"): ([256, 128], "the authors' size for RegDB"),
    ("mpanet_regdb", "identities_per_batch"): (12, "the authors' batch for RegDB"),
    ("mpanet_regdb", "images_per_modality"): (5, "the authors' batch for RegDB"),
    ("mpanet_manifest", "on_bad_image"): ("skip", "one's own folders may hold damaged files"),
    ("cmam_regdb", "max_epochs"): (210, "shorter epochs and no phase of DBSCAN"),
    ("cmam_regdb", "check_val_every_n_epoch"): (15, "shorter epochs"),
}

#: The filter of Pillow's by which each method's authors resize images; MMGL's is that of the fine-tuning.
INTERPOLATIONS = {
    "MPANet": "bilinear",
    "Baseline": "lanczos",
    "AGW": "lanczos",
    "DCLNet": "lanczos",
    "MMGL": "lanczos",
    "CMAM": "bicubic",
}

#: Settings that follow from a dataset's size, or name it.
OF_THE_DATASET = {"dataset", "steps_per_epoch"}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def plain(value: Any) -> Any:
    """A default as a config writes it."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def compare(stated: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the stated settings that differ from the defaults; a setting that there is not is an error."""
    found = {}
    for name, value in stated.items():
        assert name in defaults, f"{prefix}{name} is no setting"
        if isinstance(value, dict) and isinstance(defaults[name], dict) and prefix + name != "optimization.lr_factors":
            found |= compare(value, defaults[name], f"{prefix}{name}.")
        elif value != defaults[name]:
            found[prefix + name] = value
    return found


def differences(config: dict[str, Any]) -> dict[str, Any]:
    """The settings in which an experiment differs from its method's constructor and its source's."""
    model = config["model"]
    parameters = inspect.signature(getattr(methods, model["class_path"])).parameters
    found = compare(model["init_args"], {name: plain(item.default) for name, item in parameters.items()})
    if source := config["data"].get("source"):
        stated = {name: value for name, value in source.items() if name != "dataset"}
        defaults = {f.name: plain(f.default) for f in dataclasses.fields(Source) if f.name != "dataset"}
        found |= compare(stated, defaults, "source.")
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_repeats_the_defaults_of_its_method(path):
    meant = {setting: value for (name, setting), (value, _) in DIFFERENCES.items() if name == path.stem}
    assert differences(load(path)) == meant


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_resizes_as_the_methods_authors_do(path):
    config = load(path)
    assert config["data"]["interpolation"] == INTERPOLATIONS[config["model"]["class_path"]]


def test_every_meant_difference_is_one_of_an_experiment():
    assert {name for name, _ in [*DIFFERENCES, *DATA_DIFFERENCES]} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("method", sorted({load(path)["model"]["class_path"] for path in CONFIGS}))
def test_the_experiments_of_a_method_agree_on_their_data(method):
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    names = []
    for path in CONFIGS:
        config = load(path)
        if config["model"]["class_path"] == method:
            names.append(path.stem)
            trainer = {name: value for name, value in config["trainer"].items() if name != "logger"}
            for setting, value in {**config["data"], **trainer}.items():
                if setting not in OF_THE_DATASET:
                    values[setting][path.stem] = value
    assert len(names) > 1
    for setting, by_name in values.items():
        stated = {name: by_name.get(name) for name in names}
        meant = {name: DATA_DIFFERENCES[name, setting][0] for name in names if (name, setting) in DATA_DIFFERENCES}
        rest = [value for name, value in stated.items() if name not in meant]
        assert all(value == rest[0] for value in rest), (setting, stated)
        for name, value in meant.items():
            assert stated[name] == value != rest[0], (setting, stated)


def test_a_setting_that_differs_or_does_not_exist_is_found():
    defaults = {"margin": 0.3, "optimization": {"lr": 0.1, "milestones": [20]}}
    assert compare({"margin": 0.3, "optimization": {"lr": 0.1}}, defaults) == {}
    assert compare({"optimization": {"lr": 0.2}}, defaults) == {"optimization.lr": 0.2}
    with pytest.raises(AssertionError, match=r"optimization\.rate is no setting"):
        compare({"optimization": {"rate": 0.1}}, defaults)
