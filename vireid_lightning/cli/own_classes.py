"""Classes of the user's own by their dotted paths, for tools that are given one on the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from vireid_lightning.cli.messages import explain_class
from vireid_lightning.errors import VIReIDError


def import_class(path: str, base: type[Any]) -> type[Any]:
    """Import a user's class: ``my_data.MyDataset`` is ``MyDataset`` in ``my_data.py`` in the current folder.

    Raises:
        VIReIDError: There is no such class, or it is not derived from ``base``.
    """
    if "." not in path:
        raise VIReIDError(f"'{path}' names no module; give a class of your own as my_module.{path}.")
    before = sys.path
    # The current folder comes last, as for the `lightning` command, so that no file there hides an installed package.
    sys.path = [*before, str(Path.cwd())]
    try:
        problem = explain_class(path, base="")
    finally:
        sys.path = before
    if problem is not None:
        raise VIReIDError(problem)
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise VIReIDError(explain_class(path, base=base.__name__))
    return found
