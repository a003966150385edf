"""Where datasets lie: one folder that holds them all, given once for every config and tool."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable that names the folder of all datasets.
VARIABLE = "VIREID_DATA"

#: That folder where the variable is not set, relative to the current one.
DEFAULT = "data"


def find_below_data(given: str | Path) -> Path:
    """Return the path of a dataset: as it is given, or below the folder that ``VIREID_DATA`` names (default: ``data``).

    An absolute path, and one that exists from the current folder, stays as it is; so does one that is nowhere.

    Example:
        >>> find_below_data("/a/folder/SYSU-MM01").as_posix()
        '/a/folder/SYSU-MM01'
    """
    path = Path(given).expanduser()
    below = _find_base() / path
    try:
        return below if not path.is_absolute() and not path.exists() and below.exists() else path
    except OSError:  # a name that is too long
        return path


def explain_search(path: Path) -> str:
    """Return how to mend a path that is nowhere: where else it was looked for, and how to say where it is."""
    if path.is_absolute():
        return ""
    given = f"{VARIABLE}={os.environ[VARIABLE]}" if os.environ.get(VARIABLE) else f"{VARIABLE} is not set"
    return f", here or in {_find_base()} ({given})"


def _find_base() -> Path:
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser()
