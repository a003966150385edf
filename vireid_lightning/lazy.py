"""Public names that are imported on first use, so that reading index files or drawing images loads no Lightning."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package that imports its public names on first use.

    A package that uses it lists the same names under ``TYPE_CHECKING``, where type checkers and editors find them.

    Args:
        package: Full name of the package.
        modules: Public name -> name of the module that has it, relative to the package.

    Example:
        >>> find, _ = lazily("vireid_lightning", {"VIReIDError": "errors"})
        >>> find("VIReIDError").__name__
        'VIReIDError'
    """

    def find(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted(modules)
