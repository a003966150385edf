"""Datasets by the names of their classes, for tools that are told one on the command line."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from vireid_lightning.errors import VIReIDError, did_you_mean

if TYPE_CHECKING:
    from vireid_lightning.data.datasets.base import ReIDDataset


def dataset_class(name: str) -> type[ReIDDataset]:
    """Return a dataset's class.

    Raises:
        VIReIDError: If there is none of that name, or it draws its images itself.
    """
    from vireid_lightning import data

    public = {listed: getattr(data, listed) for listed in data.__all__}
    classes = {
        listed: value
        for listed, value in public.items()
        if inspect.isclass(value) and issubclass(value, data.ReIDDataset) and value is not data.ReIDDataset
    }
    if name == "Synthetic":
        raise VIReIDError(
            "Synthetic draws the images that its folder lacks; name the dataset whose layout they have, SYSUMM01, with "
            "that folder as the root."
        )
    if name not in classes:
        known = [listed for listed in classes if listed != "Synthetic"]
        raise VIReIDError(
            f"There is no dataset '{name}'; the datasets are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return classes[name]


def open_dataset(name: str, root: str, **options: Any) -> ReIDDataset:
    """Return a dataset by the name of its class.

    Args:
        name: The class.
        root: Its folder; of ``Manifest``, the CSV file.
        options: Arguments of the class; those that are None are left out.

    Raises:
        VIReIDError: If the name is unknown, the dataset takes no such option, or cannot be opened.
    """
    chosen = dataset_class(name)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - inspect.signature(chosen).parameters.keys():
        raise VIReIDError(f"{name} takes no {option}; leave out --{option}.")
    return chosen(root, **given)
