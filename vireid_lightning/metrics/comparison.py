"""Methods side by side: one row each, protocols as columns, mean and deviation over the runs of each method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.metrics.aggregation import aggregate_contents, require_same
from vireid_lightning.metrics.quoted import read_quoted
from vireid_lightning.metrics.result_files import read_result_file

#: What one protocol must share over all runs. Its gallery and queries are those of the dataset's trial.
_ROW_KEYS = ("removal", "cmc", "trials")
_GALLERY_KEYS = ("gallery_hash", "queries", "valid_queries")

#: What tells runs of one method apart, in the order in which a row's name tells it.
_NAMED = ("backbone", "image_size", "interpolation", "checkpoint_kind", "weights")


@dataclass(frozen=True)
class ComparedRow:
    """The scores of one method.

    Attributes:
        name: The method, and what tells it apart from other rows of the same method.
        marks: What a reader must know of it: ``re-ranked``, ``synthetic``, ``trial mismatch``, ``dataset
            mismatch``, ``preprocessing mismatch``, ``trained on`` another dataset, ``validation`` or ``quoted``.
        runs: Number of result files; None for a quoted row.
        trials: Numbers of the dataset's trials, where it has several.
        scores: Mean by protocol and measure, in per cent.
        deviations: Sample standard deviation over the runs by protocol and measure; None for a single run.
    """

    name: str
    marks: tuple[str, ...]
    runs: int | None
    trials: tuple[int, ...]
    scores: Mapping[tuple[str, str], float]
    deviations: Mapping[tuple[str, str], float | None]

    @property
    def label(self) -> str:
        """The name with its marks."""
        return self.name + (f" ({', '.join(self.marks)})" if self.marks else "")


@dataclass(frozen=True)
class Comparison:
    """Rows of several methods under the same protocols.

    Attributes:
        dataset: Name of the dataset.
        protocols: The columns.
        measures: What each protocol's column holds.
        rows: One for each method, setting and kind of scoring; quoted ones last.
    """

    dataset: str
    protocols: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[ComparedRow, ...]


def compare(
    results: Sequence[str | Path],
    *,
    measures: Sequence[str] = ("rank1", "mAP"),
    protocols: Sequence[str] | None = None,
    quoted: str | Path | None = None,
) -> Comparison:
    """Compare the runs of several methods under the same protocols.

    Runs of one method that differ in nothing but seed and trial are one row, with their mean and deviation. Runs that
    differ in backbone, image size, interpolation, first weights or in last and best checkpoint are rows of their own.

    Args:
        results: Result files. ``NAME=FILE`` puts a file into the row NAME instead of that of its method.
        measures: Names of the measures, as result files write them.
        protocols: The protocols to compare; None: those of the files, which must then have the same.
        quoted: A CSV file with the columns method, protocol and measures, of numbers from elsewhere; such rows are
            marked.

    Raises:
        VIReIDError: If the files mix datasets, protocols, galleries, or drawn and real images, or a file cannot be
            read.

    Example:
        >>> rows = compare(["first/results.json", "second/results.json"]).rows  # doctest: +SKIP
        >>> [row.label for row in rows]  # doctest: +SKIP
        ['FirstMethod', 'SecondMethod (re-ranked)']
    """
    if not results:
        raise VIReIDError("There is nothing to compare; give result files.")
    if not measures:
        raise VIReIDError("There is no measure to compare by; give some, such as rank1 and mAP.")
    measures = list(dict.fromkeys(measures))
    named = [_split_name(item) for item in results]
    files = [path for _, path in named]
    contents = [read_result_file(path) for path in files]
    _require_comparable(files, contents)
    chosen = _choose_protocols(files, contents, protocols)
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for (name, path), content in zip(named, contents):
        for part in _split_by_re_ranking(content, chosen):
            _require_measures(path, part, measures)
            groups.setdefault(_identify_row(name, part), []).append((path, part))
    rows = [_make_row(members, chosen, measures, json.loads(key)) for key, members in groups.items()]
    names = _name_rows([json.loads(key) for key in groups])
    compared = [ComparedRow(name, *row) for name, row in zip(names, rows)]
    if quoted is not None:
        numbers = read_quoted(quoted, chosen, measures)
        compared += [ComparedRow(name, ("quoted",), None, (), cells, {}) for name, cells in numbers.items()]
    return Comparison(contents[0]["dataset"], tuple(chosen), tuple(measures), tuple(compared))


def _split_name(item: str | Path) -> tuple[str | None, Path]:
    """Return the name and path of ``NAME=FILE``; a file that exists is never taken apart."""
    name, equals, path = str(item).partition("=")
    if isinstance(item, Path) or not equals or not name.strip() or Path(item).exists():
        return None, Path(item)
    return name.strip(), Path(path)


def _require_comparable(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> None:
    """Refuse files whose scores are of different tasks."""
    require_same(files, [content["dataset"] for content in contents], "dataset")
    said = [
        (path, content["synthetic"]) for path, content in zip(files, contents) if content.get("synthetic") is not None
    ]
    require_same([path for path, _ in said], [value for _, value in said], "synthetic (whether the images are drawn)")
    seen: dict[Any, tuple[list[Path], list[Any]]] = {}
    for path, content in zip(files, contents):
        for row in content["results"]:
            name = _plain_name(row)
            for key in (*_ROW_KEYS, *_GALLERY_KEYS):
                # Each trial of a dataset has a gallery of its own.
                trial = content.get("dataset_trial") if key in _GALLERY_KEYS else None
                places, values = seen.setdefault((name, key, trial), ([], []))
                places.append(path)
                values.append(row.get(key))
    for (name, key, _), (places, values) in seen.items():
        require_same(places, values, f"{key} of {name}")


def _choose_protocols(
    files: Sequence[Path], contents: Sequence[Mapping[str, Any]], wanted: Sequence[str] | None
) -> list[str]:
    found = [list(dict.fromkeys(_plain_name(row) for row in content["results"])) for content in contents]
    if wanted is None:
        if any(set(names) != set(found[0]) for names in found):
            other = next(number for number, names in enumerate(found) if set(names) != set(found[0]))
            raise VIReIDError(
                f"{files[0]} has the protocols {', '.join(found[0])} and {files[other]} {', '.join(found[other])}; "
                "choose some that all have with --protocols."
            )
        return found[0]
    for path, names in zip(files, found):
        for name in wanted:
            if name not in names:
                raise VIReIDError(
                    f"{path} has no protocol '{name}', only {', '.join(names)}.{did_you_mean(name, names)}"
                )
    return list(dict.fromkeys(wanted))


def _plain_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row's protocol without what says that it is re-ranked."""
    name = str(row["protocol"])
    return name.removesuffix(" (re-ranked)") if row.get("reranking") else name


def _split_by_re_ranking(content: Mapping[str, Any], protocols: Sequence[str]) -> list[dict[str, Any]]:
    """Return a file's content once with the plain rows and once for each re-ranking, where there are such."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in content["results"]:
        if (name := _plain_name(row)) in protocols:
            key = json.dumps(row.get("reranking"), sort_keys=True)
            parts.setdefault(key, []).append({**row, "protocol": name})
    return [{**content, "results": rows} for rows in parts.values()]


def _require_measures(path: Path, content: Mapping[str, Any], measures: Sequence[str]) -> None:
    for row in content["results"]:
        for measure in measures:
            if measure not in row["scores"]:
                raise VIReIDError(
                    f"{path} has no measure '{measure}' for {row['protocol']}, only {', '.join(row['scores'])}."
                    f"{did_you_mean(measure, row['scores'])}"
                )


def _identify_row(name: str | None, content: Mapping[str, Any]) -> str:
    """Return what a run shares with those of the same row, as a JSON text."""
    training = content.get("training") or {}
    identity = {key: content.get(key) for key in _NAMED[:-1]} | {"weights": training.get("weights")}
    marks = {
        "re-ranked": content["results"][0].get("reranking"),
        "synthetic": bool(content.get("synthetic")),
        "trial mismatch": bool(content.get("trial_mismatch")),
        "dataset mismatch": bool(content.get("dataset_mismatch")),
        "preprocessing mismatch": bool(content.get("preprocessing_mismatch")),
        "validation": content.get("stage") == "validate",
    }
    trained = content.get("trained_on_dataset")
    if trained not in (None, content.get("dataset")):
        marks[f"trained on {trained}"] = True
    method = content.get("method") or "saved embeddings"
    return json.dumps({"method": name or method, "of": method, "marks": marks, **identity}, sort_keys=True)


def _name_rows(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each row's method, with whatever tells it apart from other rows of the method."""
    names = []
    for identity in identities:
        others = [other for other in identities if other["method"] == identity["method"]]
        words = [str(identity["method"])]
        if any(other["of"] != identity["of"] for other in others):
            words.append(str(identity["of"]))
        for key in _NAMED:
            if any(other[key] != identity[key] for other in others):
                value = identity[key]
                words.append(" x ".join(map(str, value)) if isinstance(value, list) else str(value or f"no {key}"))
        settings = {json.dumps(other["marks"]["re-ranked"]) for other in others if other["marks"]["re-ranked"]}
        if len(settings) > 1 and identity["marks"]["re-ranked"]:
            words.append(" ".join(f"{key}={value}" for key, value in identity["marks"]["re-ranked"].items()))
        names.append(", ".join(words))
    return names


def _make_row(
    members: Sequence[tuple[Path, dict[str, Any]]],
    protocols: Sequence[str],
    measures: Sequence[str],
    identity: Mapping[str, Any],
) -> tuple[Any, ...]:
    aggregated = aggregate_contents([path for path, _ in members], [content for _, content in members])
    by_protocol = {row["protocol"]: row for row in aggregated["results"]}
    cells = [(protocol, measure) for protocol in protocols for measure in measures if protocol in by_protocol]
    return (
        tuple(mark for mark, given in identity["marks"].items() if given),
        aggregated["n"],
        tuple(aggregated["dataset_trials"] or ()),
        {(protocol, measure): by_protocol[protocol]["scores"][measure] for protocol, measure in cells},
        {(protocol, measure): by_protocol[protocol]["deviation"][measure] for protocol, measure in cells},
    )
