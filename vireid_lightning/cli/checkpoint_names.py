"""``--ckpt_path last`` and ``best``: the checkpoints of the newest run of a config's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from vireid_lightning.callbacks.last_and_best import find_moved
from vireid_lightning.environment import find_job
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK, load_weights_file

#: Names that Lightning's loggers give their folders where a config gives none.
_DEFAULT_NAME = "lightning_logs"


def choose_checkpoint(config: Namespace, subcommand: str) -> str | None:
    """Return the checkpoint of a run, which is put into its settings; None where it has none.

    Args:
        config: The settings of the subcommand; ``last`` and ``best`` give way to the path.
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        VIReIDError: If there is no such checkpoint, or untrained weights would be scored.
    """
    wanted: str | None = config.get("ckpt_path")
    path = wanted
    if wanted in ("last", "best"):
        path = find_checkpoint(config, wanted)
        rank_zero_info(f"--ckpt_path {wanted} is {path}")
    elif wanted == "hpc":
        raise VIReIDError("--ckpt_path hpc is Lightning's name for a file that is not written here; give last.")
    elif wanted is None and subcommand == "fit" and (path := find_requeued(config)) is not None:
        rank_zero_info(f"This SLURM job was requeued and goes on from {path}")
    is_free = subcommand == "fit" or config.allow_untrained or config.model.init_args.get("init_from")
    if path is None and not is_free:
        raise VIReIDError(
            f"`lightning {subcommand}` would score untrained weights: it has no checkpoint. Give --ckpt_path last, "
            "best or the path of one, or --allow-untrained to score them all the same."
        )
    config.ckpt_path = path
    return path


def find_checkpoint(config: Namespace, wanted: str) -> str:
    """Return the path of the last, or the best, checkpoint of the newest run that the config's logger has written.

    Args:
        config: The settings of a subcommand.
        wanted: ``last`` or ``best``.

    Raises:
        VIReIDError: If there is none; names where it was looked for.
    """
    places = list_patterns(config)
    runs = sorted(_list_last(places), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise VIReIDError(
            f"--ckpt_path {wanted}: there is no {' or '.join(map(str, places))}; train first, or give the path of a "
            "checkpoint."
        )
    if wanted == "last":
        return str(runs[-1])
    return _find_best(runs[-1])


def find_requeued(config: Namespace) -> str | None:
    """Return the newest checkpoint that this SLURM job wrote before it was requeued, or None outside of such a job."""
    job = find_job()
    if job is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) < 1:
        return None
    for path in sorted(_list_last(list_patterns(config)), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = load_weights_file(path, mapped=True)
        except VIReIDError:  # another program's, or cut short
            continue
        training = (content.get(BLOCK) or {}).get("training") if isinstance(content, dict) else None
        if (training or {}).get("slurm_job") == job:
            return str(path)
    return None


def list_patterns(config: Namespace) -> list[Path]:
    """Return the patterns of the paths at which ``last.ckpt`` of the config's runs can be."""
    name = "last.ckpt"
    if folder := config.get("checkpoint.dirpath"):
        return [Path(folder) / name]
    root = Path(config.get("trainer.default_root_dir") or ".")
    logger = config.get("trainer.logger")
    if logger is False:
        return [root / "checkpoints" / name]
    first = (logger[0] if logger else None) if isinstance(logger, list) else logger
    if isinstance(logger, list) and not logger:
        return [root / "checkpoints" / name]
    arguments: Any = (first.get("init_args") if isinstance(first, Namespace) else None) or Namespace()
    folder = Path(arguments.get("save_dir") or arguments.get("dir") or root)
    run = arguments.get("name") or arguments.get("project") or _DEFAULT_NAME
    return [folder / str(run) / "*" / "checkpoints" / name]


def _list_last(patterns: list[Path]) -> Iterator[Path]:
    for pattern in patterns:
        parts = pattern.parts
        if "*" not in parts:
            found = [pattern]
        else:
            place = parts.index("*")
            found = list(Path(*parts[:place]).glob(str(Path(*parts[place:])))) if place else []
        yield from (path for path in found if path.is_file())


def _find_best(last: Path) -> str:
    """Return the best checkpoint that a run's last one names."""
    content = load_weights_file(last, mapped=True)
    states = content.get("callbacks", {}) if isinstance(content, dict) else {}
    for key, state in states.items():
        if key.startswith("LastAndBest") and state.get("monitor") is not None:
            found = find_moved(state["best_model_path"], state["dirpath"], last.resolve().parent)
            if found is not None:
                return str(found)
            named = state["best_model_path"] or f"no score of {state['monitor']} yet"
            raise VIReIDError(
                f"--ckpt_path best: the newest run, of {last}, has no best checkpoint ({named}); give last, or a path."
            )
    raise VIReIDError(f"--ckpt_path best: {last} names no monitored score; give last, or a path.")
