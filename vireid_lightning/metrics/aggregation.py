"""Mean and deviation over result files: several trials of a dataset, or several seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vireid_lightning.errors import VIReIDError
from vireid_lightning.metrics.measures import title_of
from vireid_lightning.metrics.result_files import read_result_file
from vireid_lightning.metrics.terminal import format_score, make_table, name_dataset, to_text

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
    contents = [read_result_file(path) for path in files]
    for path, content in zip(files, contents):
        if content.get("trial_mismatch"):
            raise VIReIDError(
                f"{path} scores weights of trial {content.get('trained_on_trial')} on trial "
                f"{content.get('dataset_trial')}, whose identities they were trained on; leave it out."
            )
    return aggregate_contents(files, contents)


def aggregate_contents(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what :func:`aggregate` returns, for files that are read already and may be of mismatched trials.

    Raises:
        VIReIDError: If the files do not belong together.
    """
    _refuse_twice(files, contents)
    for key in ("dataset", "method", "checkpoint_kind"):
        require_same(files, [content.get(key) for content in contents], key)
    for mark in ("dataset_mismatch", "preprocessing_mismatch"):
        require_same(files, [bool(content.get(mark)) for content in contents], mark)
    trained_on = [content.get("trained_on_dataset") or content.get("dataset") for content in contents]
    require_same(files, trained_on, "trained_on_dataset")
    # Files of older versions do not say it.
    said = {
        path: content["synthetic"] for path, content in zip(files, contents) if content.get("synthetic") is not None
    }
    require_same(list(said), list(said.values()), "synthetic")
    trials = [content.get("dataset_trial") for content in contents]
    if None in trials and set(trials) != {None}:
        unnamed = files[trials.index(None)]
        raise VIReIDError(f"{unnamed} names no trial, but other files do; aggregate files of trials on their own.")
    if trials[0] is None:
        require_same(files, [content.get("fingerprint") for content in contents], "fingerprint")
    names = [[row["protocol"] for row in content["results"]] for content in contents]
    require_same(files, [", ".join(sorted(listed)) for listed in names], "protocols")
    scored = [set(row["scores"]) for content in contents for row in content["results"]]
    measures = [name for name in contents[0]["results"][0]["scores"] if all(name in found for found in scored)]
    rows = []
    for name in names[0]:
        found = [next(row for row in content["results"] if row["protocol"] == name) for content in contents]
        for key in _ROW_KEYS:
            require_same(files, [row.get(key) for row in found], f"{key} of {name}")
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
        "unit": "percent",
        "deviation_is": "sample standard deviation (n - 1) over files",
        "synthetic": next(iter(said.values()), None),
        "dataset_mismatch": bool(contents[0].get("dataset_mismatch")),
        "preprocessing_mismatch": bool(contents[0].get("preprocessing_mismatch")),
        "files": [str(path) for path in files],
        "results": rows,
    }


def render(aggregated: Mapping[str, Any]) -> Table:
    """Return the table of :func:`aggregate` for the terminal."""
    trials = aggregated["dataset_trials"]
    over = f"{aggregated['n']} runs" if trials is None else f"trials {', '.join(map(str, trials))}"
    table = make_table(
        f"{name_dataset(aggregated['dataset'], aggregated.get('synthetic'))}: "
        f"{aggregated['method'] or 'saved embeddings'}, n = {aggregated['n']} ({over})",
        "Per cent; \u00b1 sample standard deviation over files." if aggregated["n"] > 1 else "Per cent.",
    )
    table.add_column("Protocol", overflow="fold")
    measures = list(aggregated["results"][0]["scores"])
    for measure in measures:
        table.add_column(to_text(title_of(measure)), justify="right", no_wrap=True)
    for row in aggregated["results"]:
        cells = (format_score(row["scores"][score], row["deviation"][score]) for score in measures)
        table.add_row(to_text(row["protocol"]), *cells)
    return table


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


def require_same(files: Sequence[Path], values: Sequence[Any], what: str) -> None:
    """Refuse files that differ in what they should share.

    Raises:
        VIReIDError: Names the first file, the first that differs, and both values.
    """
    for path, value in zip(files, values):
        if value != values[0]:
            raise VIReIDError(
                f"{files[0]} and {path} do not belong together: {what} is '{values[0]}' in the first and '{value}' in "
                "the second; aggregate them apart."
            )
