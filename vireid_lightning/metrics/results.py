"""Result tables: for the terminal, and as ``results.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.files import atomic_write, write_arrays
from vireid_lightning.metrics.measures import MEASURES, title_of
from vireid_lightning.metrics.result_files import FORMAT
from vireid_lightning.metrics.scores import ProtocolScores
from vireid_lightning.metrics.terminal import choose_console, format_score, make_table, name_dataset, to_text
from vireid_lightning.printable import make_printable
from vireid_lightning.version import __version__


class ScoreTable:
    """The scores of several protocols, by name or number.

    Args:
        rows: One for each protocol.
        about: What was scored: dataset, trial, method, checkpoint and the like.

    Example:
        >>> table = evaluate_file("embeddings.npz", SYSUMM01("/data/SYSU-MM01"))  # doctest: +SKIP
        >>> table["all/single/official"].mAP  # doctest: +SKIP
        68.24
    """

    def __init__(self, rows: Sequence[ProtocolScores], about: Mapping[str, Any] | None = None) -> None:
        self.rows = tuple(rows)
        self.about = dict(about or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ProtocolScores]:
        return iter(self.rows)

    def __getitem__(self, key: str | int) -> ProtocolScores:
        if isinstance(key, int):
            return self.rows[key]
        by_name = {row.name: row for row in self.rows}
        if key not in by_name:
            raise VIReIDError(f"There is no protocol '{key}', only {', '.join(by_name)}.{did_you_mean(key, by_name)}")
        return by_name[key]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``results.json`` holds."""
        return {
            "format": FORMAT,
            "vireid_lightning": __version__,
            **self.about,
            "unit": "percent",
            "deviation_is": "sample standard deviation (n - 1) over trials",
            "results": [row.to_dict() for row in self.rows],
        }

    @property
    def title(self) -> str:
        """What was scored, in a line: dataset, trial, method, epoch and kind of checkpoint, where they are known."""
        about = self.about
        words = name_dataset(str(about.get("dataset", "")), about.get("synthetic"))
        if about.get("dataset_trial") is not None:
            words += f", trial {about['dataset_trial']}"
        if about.get("trial_mismatch"):
            words += f" BUT TRAINED ON TRIAL {about['trained_on_trial']}"
        if about.get("dataset_mismatch"):
            words += " BUT TRAINED ON ANOTHER LIST OF ITS IMAGES"
        if about.get("preprocessing_mismatch"):
            words += " ON IMAGES PREPARED OTHERWISE THAN IN TRAINING"
        if about.get("method") is not None:
            words += f": {about['method']}, epoch {about['epoch']}"
        if (trained := about.get("trained_on_dataset")) not in (None, about.get("dataset")):
            words += f", trained on {trained}"
        if about.get("checkpoint_kind") is not None:
            words += f" ({about['checkpoint_kind']} checkpoint)"
        return words

    def render(self, title: str = "") -> Table:
        """Return a table for the terminal: per cent with two decimals, deviations over trials below.

        What each protocol is made of stands under its name, so that all scores show in 80 columns.
        """
        sizes = {(row.embedding_size, row.distance) for row in self.rows}
        caption = "; ".join(f"{size} values, {distance} distance" for size, distance in sorted(sizes))
        several = any(len(row.trials) > 1 for row in self.rows)
        deviation = "; \u00b1 sample standard deviation over trials" if several else ""
        table = make_table(title or None, f"Per cent{deviation}. {caption}.")
        counted = f"queries (valid), gallery\n{'trials, ' if several else ''}gallery's hash"
        table.add_column(f"Protocol\n{counted}", overflow="fold")
        scored = self.rows[0].scored if self.rows else tuple(MEASURES)
        measures = [name for name in scored if all(name in row.scored for row in self.rows)]
        for heading in map(title_of, measures):
            table.add_column(to_text(heading), justify="right", no_wrap=True)
        for row in self.rows:
            scores = (format_score(row.mean(score), row.deviation(score)) for score in measures)
            table.add_row(to_text(_describe_row(row), keep="\n"), *scores)
        return table

    def print(self, title: str = "", console: Console | None = None) -> None:
        """Print :meth:`render`, at full width where the output is no terminal."""
        (console or choose_console()).print(self.render(title))


def write_results(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a result file, whole or not at all."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def write_details(path: str | Path, table: ScoreTable) -> None:
    """Write what stands behind the means of a table, as an .npz file, whole or not at all.

    For each protocol and trial, under ``<protocol>/trial_<number from 1>/``: ``cmc``, the whole CMC curve in per cent;
    ``query`` (Q,), the queries' positions in the split; ``first`` (Q,), the rank of each query's first true match;
    and ``measures/<name>`` (Q,), each measure of each query, from 0 to 1, such as ``measures/mAP``, its average
    precision. Queries without a true match have an infinite rank, and NaN in every measure. ``about`` is a JSON text
    that says what was scored, as in the result file.
    """
    arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps(table.about, default=str))}
    for row in table:
        for number, (trial, scores) in enumerate(zip(row.protocol.trials, row.trials, strict=True), start=1):
            values = {"cmc": scores.cmc(), "query": trial.query, "first": scores.first}
            values |= {f"measures/{name}": of_queries for name, of_queries in scores.of_queries.items()}
            arrays |= {f"{row.name}/trial_{number}/{name}": array for name, array in values.items()}
    write_arrays(path, arrays)


def keep_earlier(path: str | Path) -> Path | None:
    """Rename a file that exists from ``name.json`` to the next free of ``name_1.json``, ...; return the new path."""
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}_{number}{path.suffix}")).exists():
        number += 1
    path.rename(kept)
    return kept


def _describe_row(row: ProtocolScores) -> str:
    """Return a protocol's name and, in two lines below, what was scored."""
    queries, valid = (_span(getattr(trial, name) for trial in row.trials) for name in ("queries", "valid_queries"))
    gallery = _span(trial.gallery_images for trial in row.trials)
    trials = f"{len(row.trials)} trials, " if len(row.trials) > 1 else ""
    name, digest = make_printable(row.name), make_printable(row.gallery_hash)
    return f"{name}\n{queries}{'' if valid == queries else f' ({valid})'}, {gallery}\n{trials}{digest}"


def _span(values: Iterator[int]) -> str:
    listed = sorted(set(values))
    return f"{listed[0]:,}" if len(listed) == 1 else f"{listed[0]:,}-{listed[-1]:,}"
