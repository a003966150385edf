"""Datasets by the names of their classes, for tools that are given one on the command line."""

from __future__ import annotations

import inspect
from typing import Any

from vireid_lightning import data
from vireid_lightning.cli.own_classes import import_class
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


def open_dataset(dataset: type[ReIDDataset] | str, root: str, **options: Any) -> ReIDDataset:
    """Return a dataset.

    Args:
        dataset: Its class, or the name that :func:`find_dataset` knows it by.
        root: Its folder; for ``Manifest``, the CSV file.
        options: Arguments of the class; those that are None are left out.

    Raises:
        VIReIDError: The name is unknown, or the dataset takes no such option, needs others or cannot be opened.
    """
    cls = find_dataset(dataset) if isinstance(dataset, str) else dataset
    given = {option: value for option, value in options.items() if value is not None}
    signature = inspect.signature(cls)
    try:
        signature.bind(root, **given)
    except TypeError as error:
        for option in given.keys() - signature.parameters.keys():
            flag = option.replace("_", "-")
            raise VIReIDError(f"{cls.__name__} takes no {option}; leave out --{flag}.") from None
        raise VIReIDError(
            f"{cls.__name__} cannot be opened with a root alone: {error}. Give its other arguments default values."
        ) from None
    return cls(root, **given)
