"""Datasets by the names of their classes, for tools that are given one on the command line."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vireid_lightning import data
from vireid_lightning.cli.messages import explain_message
from vireid_lightning.cli.numbers import Whole
from vireid_lightning.cli.own_classes import import_class
from vireid_lightning.cli.repeated_runs import read_configs
from vireid_lightning.data.datasets.base import ReIDDataset
from vireid_lightning.errors import VIReIDError, did_you_mean


def find_exported() -> dict[str, type[ReIDDataset]]:
    """Return the datasets that ``vireid_lightning.data`` exports; nothing that it imports on first use is loaded."""
    return {
        name: value
        for name, value in vars(data).items()
        if isinstance(value, type) and issubclass(value, ReIDDataset) and value is not ReIDDataset
    }


def list_datasets() -> list[str]:
    """Return the names of this package's datasets that a tool can be given."""
    return sorted(name for name, dataset in find_exported().items() if dataset.closed_to_tools is None)


def find_dataset(name: str) -> type[ReIDDataset]:
    """Return a dataset's class.

    Args:
        name: The class's name, or for a class of the user's the dotted path of it: ``my_data.MyDataset`` is the class
            ``MyDataset`` in ``my_data.py`` in the current folder or in an installed package.

    Raises:
        VIReIDError: No dataset has that name, or it cannot be opened by a tool.
    """
    dataset = find_exported().get(name) or (import_class(name, ReIDDataset) if "." in name else None)
    if dataset is None:
        known = list_datasets()
        raise VIReIDError(
            f"There is no dataset '{name}'; the datasets are {', '.join(known)}.{did_you_mean(name, known)} A class of "
            "your own is given with its module, such as my_data.MyDataset."
        )
    if dataset.closed_to_tools is not None:
        raise VIReIDError(dataset.closed_to_tools)
    return dataset


def open_dataset(cls: type[ReIDDataset], given: Mapping[str, Any]) -> ReIDDataset:
    """Return a dataset.

    Args:
        cls: Its class.
        given: Arguments of the class, in the plain values of a config.

    Raises:
        VIReIDError: The dataset takes no such argument or value, needs others or cannot be opened.
    """
    taken = inspect.signature(cls).parameters
    for option in given.keys() - taken.keys():
        flag = f"--{option.replace('_', '-')}" if option in ("trial", "direction", "allow_outside") else option
        raise VIReIDError(f"{cls.__name__} takes no {option}; leave out {flag}.{did_you_mean(option, taken)}")
    for option, parameter in taken.items():
        is_needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if is_needed and option not in given:
            raise VIReIDError(f"{cls.__name__} needs {option}; give --set {option}=VALUE, or a config that has it.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "dataset", fail_untyped=False)
    try:
        parsed = parser.parse_object({"dataset": {name: _to_plain(value) for name, value in given.items()}})
    except ArgumentError as error:
        raise VIReIDError(explain_message(str(error), (), taken, ())) from error
    dataset: ReIDDataset = parser.instantiate(parsed).dataset
    return dataset


def name_root(cls: type[ReIDDataset]) -> str:
    """Return the argument of a dataset that its folder or file is given by."""
    taken = inspect.signature(cls).parameters
    return "root" if "root" in taken else next(iter(taken), "root")


def _to_plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every tool has to say which dataset it is given, beside its name and root."""
    parser.add_argument(
        "--config", action="append", help="config of an experiment, whose dataset is opened; may be given several times"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the dataset's class, such as encoding=gbk; may be given several times",
    )
    parser.add_argument(
        "--trial", type=Whole(1), help="number of the split, for a dataset that has several, such as RegDB"
    )
    parser.add_argument("--direction", help="the direction that a Manifest is scored in, such as visible-to-infrared")
    outside = "let a Manifest name images outside of its folder, by absolute paths, dots or links"
    parser.add_argument("--allow-outside", action="store_true", default=None, help=outside)


def choose_dataset(arguments: argparse.Namespace) -> tuple[type[ReIDDataset], dict[str, Any]]:
    """Return the class of the dataset that a tool's arguments name, and the arguments of its constructor.

    Args:
        arguments: Those of :func:`add_dataset_arguments`, and the tool's own ``dataset`` and ``root``.

    Raises:
        VIReIDError: They name no dataset, or two.
    """
    shorthands = {name: getattr(arguments, name) for name in ("trial", "direction", "allow_outside")}
    given = {name: value for name, value in shorthands.items() if value is not None}
    for setting in arguments.set:
        name, is_given, value = setting.partition("=")
        if not is_given or not name.isidentifier():
            raise VIReIDError(f"--set is {setting!r}; give NAME=VALUE, such as encoding=gbk.")
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[name] = value
    if arguments.config is None:
        if arguments.dataset is None or arguments.root is None:
            raise VIReIDError("No dataset is named: give its class and its root, or --config with an experiment.")
        cls = find_dataset(arguments.dataset)
        return cls, {name_root(cls): arguments.root, **given}
    if arguments.dataset is not None or arguments.root is not None:
        raise VIReIDError(
            "The dataset is named both by --config and by its class or root: give one of them; --set root=FOLDER is "
            "another root for the config's dataset."
        )
    name, settings = _read_dataset(arguments.config)
    # Synthetic, which is closed to tools that know no settings of it, is opened by its config's.
    found = find_exported().get(name) or (import_class(name, ReIDDataset) if "." in name else find_dataset(name))
    return found, settings | given


def _read_dataset(configs: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the class and the settings of ``data.dataset`` of some configs, of which later ones count."""
    name, settings = "", dict[str, Any]()
    for content in read_configs(configs):
        block = content.get("data")
        dataset = block.get("dataset") if isinstance(block, dict) else None
        if isinstance(dataset, str):
            dataset = {"class_path": dataset}
        if isinstance(dataset, dict):
            if dataset.get("class_path", name) != name:
                name, settings = str(dataset["class_path"]), {}
            settings |= dataset.get("init_args") or {}
    if not name:
        raise VIReIDError(f"{' and '.join(configs)} name no data.dataset; give the config of an experiment.")
    return name, settings
