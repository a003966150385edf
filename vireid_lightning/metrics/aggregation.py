"""Mean and deviation over result files: several trials of a dataset, or several seeds."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.measures import title_of

#: What all rows of one protocol must share.
_ROW_KEYS = ("distance", "reranking", "cmc", "removal", "embedding_size")


def aggregate(paths: Sequence[str | Path]) -> dict[str, Any]:
    """Return mean and sample standard deviation (n - 1) of each protocol's scores over result files.

    Each file counts once, with its mean over the protocol's own trials.

    Args:
        paths: ``results.json`` files of one method on one dataset: of different trials, of several seeds, or of several
            seeds of each trial, each trial as often as the others.

    Raises:
        VIReIDError: If a file is no result file, or the files mix datasets, methods, last and best weights, protocols,
            distances or re-ranking, hold the same file or checkpoint twice, a trial more often than another, a result
            of another trial than its checkpoint was trained on, or only some of them name a trial.
    """
    if not paths:
        raise VIReIDError("There is nothing to aggregate; give result files.")
    files = [Path(path) for path in paths]
    contents = [_read(path) for path in files]
    _refuse_twice(files, contents)
    for path, content in zip(files, contents):
        if content.get("trial_mismatch"):
            raise VIReIDError(
                f"{path} scores weights of trial {content.get('trained_on_trial')} on trial "
                f"{content.get('dataset_trial')}, whose identities they were trained on; leave it out."
            )
    for key in ("dataset", "method", "unit", "checkpoint_kind"):
        _require_same(files, [content.get(key) for content in contents], key)
    trials = [content.get("dataset_trial") for content in contents]
    if None in trials and set(trials) != {None}:
        unnamed = files[trials.index(None)]
        raise VIReIDError(f"{unnamed} names no trial, but other files do; aggregate files of trials on their own.")
    if trials[0] is None:
        _require_same(files, [content.get("fingerprint") for content in contents], "fingerprint")
    names = [[row["protocol"] for row in content["results"]] for content in contents]
    _require_same(files, [", ".join(sorted(listed)) for listed in names], "protocols")
    scored = [set(row["scores"]) for content in contents for row in content["results"]]
    measures = [name for name in contents[0]["results"][0]["scores"] if all(name in found for found in scored)]
    rows = []
    for name in names[0]:
        found = [next(row for row in content["results"] if row["protocol"] == name) for content in contents]
        for key in _ROW_KEYS:
            _require_same(files, [row.get(key) for row in found], f"{key} of {name}")
        values = {score: [row["scores"][score] for row in found] for score in measures}
        rows.append(
            {
                "protocol": name,
                **{key: found[0].get(key) for key in _ROW_KEYS},
                "n": len(found),
                "scores": {score: statistics.fmean(listed) for score, listed in values.items()},
                "deviation": {
                    score: statistics.stdev(listed) if len(listed) > 1 else None for score, listed in values.items()
                },
            }
        )
    return {
        "stage": "aggregate",
        "dataset": contents[0]["dataset"],
        "method": contents[0].get("method"),
        "n": len(files),
        "dataset_trials": None if trials[0] is None else sorted(set(trials)),
        "unit": contents[0]["unit"],
        "deviation_is": "sample standard deviation (n - 1) over files",
        "files": [str(path) for path in files],
        "results": rows,
    }


def render(aggregated: Mapping[str, Any]) -> Table:
    """Return the table of :func:`aggregate` for the terminal."""
    trials = aggregated["dataset_trials"]
    over = f"{aggregated['n']} runs" if trials is None else f"trials {', '.join(map(str, trials))}"
    table = Table(
        title=f"{aggregated['dataset']}: {aggregated['method'] or 'saved embeddings'}, n = {aggregated['n']} ({over})",
        title_justify="left",
        caption="Per cent; \u00b1 sample standard deviation over files.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("Protocol", no_wrap=True)
    measures = list(aggregated["results"][0]["scores"])
    for heading in (*map(title_of, measures), "n"):
        table.add_column(heading, justify="right")
    for row in aggregated["results"]:
        cells = []
        for score in measures:
            deviation = row["deviation"][score]
            cells.append(f"{row['scores'][score]:.2f}" + ("" if deviation is None else f"\n\u00b1{deviation:.2f}"))
        table.add_row(row["protocol"], *cells, str(row["n"]))
    return table


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VIReIDError(f"There is no result file {path}; give the results.json files of finished tests.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VIReIDError(f"{path} cannot be read as a result file: {error}.") from error
    if not isinstance(content, dict) or "dataset" not in content or not _are_rows(content.get("results")):
        raise VIReIDError(f"{path} is no result file of `lightning test` or `vireid evaluate`.")
    if content.get("stage") == "aggregate":
        raise VIReIDError(f"{path} is itself an aggregate; give the result files that it was made of.")
    return content


def _are_rows(rows: object) -> bool:
    """Return whether there are rows, each of which names its protocol and has scores."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return False
    return all("protocol" in row and {"rank1", "mAP"} <= set(row.get("scores", ())) for row in rows)


def _refuse_twice(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what would count one run twice: a file, a checkpoint, or a trial more often than the others."""
    trials = Counter(content.get("dataset_trial") for content in contents)
    if len(set(trials.values())) > 1:
        often, seldom = max(trials, key=trials.__getitem__), min(trials, key=trials.__getitem__)
        named = [str(path) for path, content in zip(files, contents) if content.get("dataset_trial") == often]
        raise VIReIDError(
            f"Trial {often} occurs {trials[often]} times and trial {seldom} {trials[seldom]} times; give each as often "
            f"as the others. Of trial {often}: {', '.join(named)}."
        )
    for what, keys in (
        ("file", [str(path.resolve()) for path in files]),
        ("checkpoint", [content.get("checkpoint") for content in contents]),
        ("embeddings", [content.get("embeddings") for content in contents]),
    ):
        first: dict[Any, Path] = {}
        for path, key in zip(files, keys):
            if key is not None and first.setdefault(key, path) is not path:
                raise VIReIDError(
                    f"{first[key]} and {path} are both of {what} {key}, which would count twice; leave one of them out."
                )


def _require_same(files: Sequence[Path], values: Sequence[Any], what: str) -> None:
    for path, value in zip(files, values):
        if value != values[0]:
            raise VIReIDError(
                f"{files[0]} and {path} do not belong together: {what} is '{values[0]}' in the first and '{value}' in "
                "the second; aggregate them apart."
            )
