"""What the benchmarks share: runs that a stopped command goes on with, and tables that know where they come from.

A finished run is a JSON file of its own, named by what was run and by a hash of its settings, so that nothing is run
twice and nothing of other settings is taken for it. A table is a JSON file in ``docs/figures``: its command, the files
of code that it depends on, commit, date, machine, versions and the values of every seed. What README and docs show of
it stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``; ``python tests/benchmarks/evidence.py`` writes it
there, and tests/test_evidence.py fails where the two differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import re
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from vireid_lightning.callbacks import RetrievalMetrics
from vireid_lightning.environment import find_code_state, list_versions

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

MARKED = re.compile(r"(?P<start><!-- figures: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(?P<end><!-- end -->)", re.DOTALL)


class Runs:
    """Finished runs in a folder; :meth:`do` runs what is missing, until the minutes are over.

    Args:
        folder: Where the runs lie.
        minutes: No run begins after so many minutes; None: all are done.
    """

    def __init__(self, folder: Path, minutes: float | None = None) -> None:
        self.folder, self.minutes, self.begun = folder, minutes, time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Return the file of a run."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:10]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}-{digest}.json"

    def find(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a finished run, or None."""
        path = self.path(name, settings)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

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
        result["seconds"] = time.perf_counter() - start
        unfinished = self.path(name, settings).with_suffix(".part")
        unfinished.write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
        unfinished.replace(self.path(name, settings))
        shown = ", ".join(f"{key} {value:.2f}" for key, value in result.items() if isinstance(value, float))
        print(f"{name} {dict(settings)}: {shown}", flush=True)
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


def spread(values: Sequence[float] | str, form: str = ".1f") -> str:
    """Return mean and standard deviation as text; a dash where there is no value, and text as it is."""
    if isinstance(values, str):
        return values
    if not values:
        return "-"
    text = f"{statistics.mean(values):{form}}"
    return f"{text} +- {statistics.stdev(values):{form}}" if len(values) > 1 else text


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--write``, by which a benchmark keeps its table."""
    parser.add_argument("--write", action="store_true", help="write docs/figures/NAME.json, which the pages show")


def name_command(script: str, words: Sequence[str] | None = None) -> str:
    """Return the command that a script was started with, from the repository's folder, without ``--write``.

    Args:
        script: The script's ``__file__``.
        words: What follows it; None: what the process was started with.
    """
    given = sys.argv[1:] if words is None else words
    path = Path(script).resolve().relative_to(ROOT).as_posix()
    return shlex.join(["python", path, *(word for word in given if word != "--write")])


def name_machine() -> str:
    """Return cores, processor and GPU; the family and model of a processor, where known, because names are shared."""
    processor = platform.processor() or platform.machine()
    if (about := Path("/proc/cpuinfo")).is_file():
        found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", about.read_text(encoding="utf-8"), re.M))
        if len(found) == 3:
            processor = f"{found['model name']}, family {found['cpu family']}, model {found['model']}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores ({processor}), {gpu}"


def write_table(
    name: str,
    *,
    command: str,
    code: Sequence[str],
    settings: Mapping[str, Any],
    columns: Sequence[str],
    rows: Mapping[str, Sequence[Sequence[float] | str]],
    formats: str | Sequence[str] = ".1f",
    count: str | None = "seeds",
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    folder: Path | None = FIGURES,
) -> dict[str, Any]:
    """Return a table with all that says where it comes from, and write it.

    Args:
        name: Name of the table and of its file.
        command: The command that runs it, from the repository's folder.
        code: Files and folders whose change would change the figures.
        settings: The design: budget, images, rates.
        columns: Titles, the first of which is that of the rows.
        rows: For each row and column the values of the seeds, or a text.
        formats: Format of the values that are shown, of all columns or of each but the first.
        count: Title of the column that says how many values there are; None leaves it out.
        curves: For each row and loss term its mean over the seeds, epoch by epoch; kept, not shown.
        folder: Where it is written; None: nowhere.
    """
    state = find_code_state() or {"commit": "unknown", "dirty": True}
    table = {
        "name": name,
        "command": command,
        "code": list(code),
        **state,
        "date": date.today().isoformat(),
        "machine": name_machine(),
        "versions": list_versions(),
        "settings": dict(settings),
        "columns": list(columns),
        "formats": [formats] * (len(columns) - 1) if isinstance(formats, str) else list(formats),
        "count": count,
        "rows": {row: [_shorten(cell) for cell in cells] for row, cells in rows.items()},
    }
    if curves is not None:
        table["curves"] = {row: {term: list(values) for term, values in terms.items()} for row, terms in curves.items()}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(table, indent=1, default=str) + "\n", encoding="utf-8")
    return table


def _shorten(cell: Sequence[float] | str) -> list[float] | str:
    """Return values with six digits, which is more than any table shows."""
    return cell if isinstance(cell, str) else [float(f"{value:.6g}") for value in cell]


def read_tables(folder: Path = FIGURES) -> dict[str, dict[str, Any]]:
    """Return all tables by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def format_table(table: Mapping[str, Any]) -> str:
    """Return a table as README and docs show it."""
    columns = [*table["columns"], *([table["count"]] if table["count"] else [])]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for row, cells in table["rows"].items():
        shown = [spread(cell, form) for cell, form in zip(cells, table["formats"], strict=True)]
        if table["count"]:
            seeds = sorted({len(cell) for cell in cells if cell and not isinstance(cell, str)}) or [0]
            shown.append("-".join(map(str, seeds)))
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def format_index(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the list of all tables: command, code, commit, date."""
    lines = ["| Table | Command | Depends on | Last run |", "|---|---|---|---|"]
    for name, table in tables.items():
        code = ", ".join(f"`{path}`" for path in table["code"])
        when = f"{table['date']}, {table['commit'][:10]}{' and changes' if table['dirty'] else ''}, {table['machine']}"
        lines.append(f"| {name} | `{table['command']}` | {code} | {when} |")
    return "\n".join(lines) + "\n"


def fill(text: str, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a page's text with its marked places written anew.

    Raises:
        KeyError: If a page names a table that is not there.
    """

    def write(match: re.Match[str]) -> str:
        name = match["name"]
        content = format_index(tables) if name == "index" else format_table(tables[name])
        return f"{match['start']}{content}{match['end']}"

    return MARKED.sub(write, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), read_tables()), encoding="utf-8")
