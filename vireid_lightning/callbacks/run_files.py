"""Where a run's results go, and what a checkpoint's file says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer


def results_folder(trainer: Trainer) -> Path:
    """Return the folder of the checkpoint that was loaded; where there was none, :func:`log_folder`."""
    if trainer.ckpt_path is not None:
        return Path(trainer.ckpt_path).resolve().parent
    return log_folder(trainer)


def log_folder(trainer: Trainer) -> Path:
    """Return the folder of the run's logs, or the trainer's default folder where nothing is logged."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def checkpoint_label(path: str | Path | None, checkpoint: Mapping[str, Any]) -> str | None:
    """Return ``last`` or ``best`` for a checkpoint file, or None where it cannot be told.

    ``last`` by its name; ``best`` if the states of the callbacks that wrote it say that a monitored score was best
    there.
    """
    if path is None:
        return None
    name = Path(path).name
    if name.startswith("last"):
        return "last"
    for state in checkpoint.get("callbacks", {}).values():
        is_monitored = isinstance(state, Mapping) and state.get("monitor") is not None
        if is_monitored and Path(state.get("best_model_path") or "").name == name:
            return "best"
    return None
