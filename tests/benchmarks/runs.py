"""Runs that a stopped benchmark goes on with: what each gave, of which code and machine, and the training of one.

A finished run is a JSON file of its own, named by what was run and by a hash of its settings, so that nothing is run
twice and nothing of other settings is taken for it. It says which commit, machine and day it is of, and a table says
the same of the runs that it was written from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import shlex
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.evidence import FIGURES, add_write_option, describe_origin
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from vireid_lightning.callbacks import RetrievalMetrics

#: What the scores of a trained method depend on.
CODE = (
    "tests/benchmarks/runs.py",
    *(f"vireid_lightning/{part}" for part in ("methods", "modules", "losses", "data", "metrics", "callbacks")),
)


class Runs:
    """Finished runs in a folder; :meth:`do` runs what is missing, until the minutes are over.

    Args:
        folder: Where the runs lie.
        minutes: No run begins after so many minutes; None: all are done.
    """

    def __init__(self, folder: Path, minutes: float | None = None) -> None:
        self.folder, self.minutes, self.begun = folder, minutes, time.perf_counter()
        self._origins: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Return the file of a run."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:10]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}-{digest}.json"

    def find(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a finished run, or None."""
        path = self.path(name, settings)
        if not path.is_file():
            return None
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self._origins.append(run.get("origin", {}))
        return run

    def take_origin(self) -> dict[str, Any]:
        """Return commit, date and machine of the runs that were found since the last call, several with commas."""
        found, self._origins = self._origins, []
        values = {
            key: sorted({str(origin.get(key, "unknown")) for origin in found}) for key in ("commit", "date", "machine")
        }
        joined = {key: ", ".join(each) for key, each in values.items() if each}
        return {**joined, "dirty": any(origin.get("dirty", True) for origin in found)} if found else {}

    def do(
        self, name: str, settings: Mapping[str, Any], train: Callable[..., dict[str, Any]], **more: Any
    ) -> dict[str, Any] | None:
        """Return a finished run, running it if it is missing and there is time; else None."""
        if (found := self.find(name, settings)) is not None:
            return found
        if self.minutes is not None and time.perf_counter() - self.begun > 60 * self.minutes:
            return None
        start = time.perf_counter()
        result = {"run": name, "settings": dict(settings), **train(**settings, **more)}
        result |= {"seconds": time.perf_counter() - start, "origin": describe_origin()}
        unfinished = self.path(name, settings).with_suffix(".part")
        unfinished.write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
        unfinished.replace(self.path(name, settings))
        shown = ", ".join(f"{key} {value:.2f}" for key, value in result.items() if isinstance(value, float))
        print(f"{name} {dict(settings)}: {shown}", flush=True)
        self._origins.append(result["origin"])
        return result


class History(Callback):
    """Keeps what each epoch logged."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        logged = {name: round(float(value), 5) for name, value in trainer.callback_metrics.items() if "/" in name}
        self.epochs.append({"epoch": trainer.current_epoch, **logged})


def quiet() -> None:
    """One thread, and no advice from Lightning."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric", "timm.models._builder"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def train_and_score(
    module: Any,
    data: Any,
    *,
    epochs: int,
    keep: Path | None = None,
    validate: bool = False,
    precision: Any = "32-true",
) -> dict[str, Any]:
    """Train a method, score validation and test persons, and return scores, logged epochs and training's CPU minutes.

    Args:
        module: The method.
        data: Its datamodule.
        epochs: Number of epochs; 0 only scores.
        keep: Checkpoint to write after training.
        validate: Whether the validation persons are scored too.
        precision: The trainer's precision.
    """
    history = History()
    module.print = lambda *_: None
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(
            accelerator="cpu",
            precision=precision,
            max_epochs=max(epochs, 1),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            default_root_dir=place,
            callbacks=[RetrievalMetrics(console=Console(quiet=True)), history],
        )
        scores: dict[str, Any] = {"epochs": history.epochs}
        if epochs:
            begun = time.process_time()
            trainer.fit(module, datamodule=data)
            scores["minutes"] = (time.process_time() - begun) / 60
            if keep is not None:
                trainer.save_checkpoint(keep)
        if validate:
            trainer.limit_val_batches = 1.0
            (found,) = trainer.validate(module, datamodule=data, verbose=False)
            scores |= {name: float(value) for name, value in found.items() if name.startswith("val/")}
        trainer.test(module, datamodule=data, verbose=False)
        return scores | {name: float(trainer.callback_metrics[f"test/{name}"]) for name in ("rank1", "mAP")}


def add_run_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Declare what all benchmarks of runs have: where these lie, for how long, and what becomes of the tables."""
    parser.add_argument("--output", type=Path, default=Path(output), help="folder of images, runs and tables")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--table", action="store_true", help="write the tables of what is finished, and train nothing")
    parser.add_argument("--quick", action="store_true", help="a step of everything, to see that it runs")
    add_write_option(parser)


def find_table_folder(options: argparse.Namespace) -> Path:
    """Return where the tables are written: docs/figures with ``--write``, else beside the runs."""
    return FIGURES if options.write else options.output / "tables"


def name_settings(
    script: str, parser: argparse.ArgumentParser, options: argparse.Namespace, *, without: Collection[str] = ()
) -> str:
    """Return the command that makes the same runs: the script and every setting that is not the default.

    Args:
        script: Path of the script from the repository's folder.
        parser: The script's options.
        options: Their values.
        without: Names of settings that are left out beside those of :func:`add_run_options`.
    """
    words = ["python", script]
    for action in parser._actions:
        name, value = action.dest, getattr(options, action.dest, None)
        if name in {"help", "output", "minutes", "table", "quick", "write", *without} or value == action.default:
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [action.option_strings[0], *(f"{each:g}" if isinstance(each, float) else str(each) for each in values)]
    return shlex.join(words)
