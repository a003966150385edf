"""What code runs here: versions of packages, and the state of the user's repository."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from vireid_lightning.version import __version__

#: Packages whose versions scores may depend on.
_PACKAGES = ("torch", "lightning", "timm")

_PATIENCE = 10  # seconds that git may take, as in a large repository on a slow disk


def list_versions() -> dict[str, str | None]:
    """Return the versions of this package, of Python and of what computes the scores; None where one is absent."""
    found: dict[str, str | None] = {"vireid_lightning": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def find_job() -> str | None:
    """Return the number of the SLURM job that this is, with its task's where it is one of an array, or None."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def find_code_state() -> dict[str, str | bool] | None:
    """Return the commit of the current folder's repository, and whether tracked files differ from it.

    A folder is looked at once, so that a long run tells what it was started from.

    Returns:
        ``commit`` and ``dirty``; None where there is no repository, no commit or no git.
    """
    return _find_code_state(Path.cwd())


@functools.cache
def _find_code_state(folder: Path) -> dict[str, str | bool] | None:
    commit = _run_git(folder, "rev-parse", "--verify", "HEAD")
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if not commit or changes is None else {"commit": commit, "dirty": bool(changes)}


def _run_git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it fails; it writes nothing and starts no program of the repository's."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
