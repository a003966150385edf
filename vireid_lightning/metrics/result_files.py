"""Reading result files: what they must hold, checked before anything is computed from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file, name_absence
from vireid_lightning.version import __version__

#: Number of the layout of ``results.json``.
FORMAT = 1

#: A result file has some kilobytes; what is larger than this is something else, and is not read into memory.
_LARGEST = 2**24  # bytes

_ROUNDING = 1e-6  # a mean of values that are all 100 may end a little above


def read_result_file(path: str | Path) -> dict[str, Any]:
    """Read a result file of ``lightning test``, ``lightning validate`` or ``vireid evaluate``.

    Args:
        path: The file.

    Returns:
        Its content. ``dataset`` and ``results`` are there, each row of which has ``protocol`` and ``scores`` with
        ``rank1`` and ``mAP``; all scores are numbers from 0 to 100. Files of older versions may lack other keys.

    Raises:
        VIReIDError: If the file cannot be read, is an aggregate or of a layout that this version does not know, or a
            key that is used is missing or holds something else than it should; names the file and the key.
    """
    path = Path(path)
    content = _parse(path)
    if not isinstance(content, dict):
        raise VIReIDError(
            f"{path} is no result file: it holds {_name_kind(content)} instead of an object; give a file that "
            "`lightning test` or `vireid evaluate` wrote."
        )
    if content.get("stage") == "aggregate":
        raise VIReIDError(f"{path} is itself an aggregate; give the result files that it was made of.")
    found = content.get("format", FORMAT)
    if isinstance(found, bool) or not isinstance(found, int) or found != FORMAT:
        raise VIReIDError(
            f"{path} is in format {_shorten(found)}, written by vireid-lightning "
            f"{_shorten(content.get('vireid_lightning'))}, and this version ({__version__}) reads format {FORMAT}; "
            "read it with the version that wrote it."
        )
    _check_object(path, "", content, _FILE, required=("dataset", "results"))
    names: set[str] = set()
    for number, row in enumerate(content["results"]):
        key = f"results[{number}]"
        _check_object(path, key, row, _ROW, required=("protocol", "scores"))
        for measure in ("rank1", "mAP"):
            if measure not in row["scores"]:
                _refuse_missing(path, f"{key}.scores.{measure}")
        if row["protocol"] in names:
            raise VIReIDError(
                f"{path} has two rows of the protocol '{_shorten(row['protocol'])}'; leave one of them out."
            )
        names.add(row["protocol"])
    return content


def check_about(origin: str | Path, about: Mapping[str, Any]) -> None:
    """Refuse what saved embeddings say of where they come from, if a key is not what results may carry.

    Raises:
        VIReIDError: Names the file and the key.
    """
    _check_object(Path(origin), "about", dict(about), _ABOUT, required=())


def _parse(path: Path) -> object:
    if name_absence(path) == "is a folder":
        raise VIReIDError(f"{path} is a folder; give the results.json in it.")
    if not is_file(path):
        raise VIReIDError(
            f"There is no result file {path}: it {name_absence(path)}; give the results.json files of finished tests."
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise VIReIDError(
                f"{path} cannot be read as a result file: it has {path.stat().st_size / 2**20:.0f} MiB, which no "
                "result file has; give another."
            )
        # Other editors may put a byte order mark first.
        return json.loads(
            path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_collect
        )
    except RecursionError:
        raise VIReIDError(f"{path} cannot be read as a result file: it is nested too deeply; give another.") from None
    except (OSError, ValueError) as error:  # no UTF-8, no JSON, or a number of thousands of digits
        if isinstance(error, VIReIDError):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise VIReIDError(
            f"{path} cannot be read as a result file: {reason}; give it as `lightning test` or `vireid evaluate` "
            "wrote it."
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number of JSON and no score")


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dictionary, unless a key occurs twice and one value would be lost."""
    collected: dict[str, Any] = {}
    for key, value in pairs:
        if key in collected:
            raise ValueError(f"the key '{_shorten(key)}' occurs twice in one object")
        collected[key] = value
    return collected


#: Refuses a value that is not what it should be. The path is that of the file, the key that of the value.
_Check = Callable[[Path, str, Any], None]


def _check_object(path: Path, key: str, value: object, schema: Mapping[str, _Check], required: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        _refuse(path, key, value, "an object")
    for name in required:
        if name not in value:
            _refuse_missing(path, _join(key, name))
    for name, check in schema.items():
        if name in value:
            check(path, _join(key, name), value[name])


def _is_text(path: Path, key: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        _refuse(path, key, value, "a text")


def _is_truth(path: Path, key: str, value: object) -> None:
    if not isinstance(value, bool):
        _refuse(path, key, value, "true or false")


def _is_whole(path: Path, key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(path, key, value, "a whole number")


def _is_percent(path: Path, key: str, value: object) -> None:
    # Also false for NaN and the infinity that 1e999 is read as.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100 + _ROUNDING:
        _refuse(path, key, value, "a number from 0 to 100")


def _is_number(path: Path, key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        _refuse(path, key, value, "a number")


def _is_unit(path: Path, key: str, value: object) -> None:
    if value != "percent":
        _refuse(path, key, value, "'percent'")


def _is_object(path: Path, key: str, value: object) -> None:
    _check_object(path, key, value, {}, required=())


def _or_null(check: _Check) -> _Check:
    def check_unless_null(path: Path, key: str, value: object) -> None:
        if value is not None:
            check(path, key, value)

    return check_unless_null


def _each_of(check: _Check) -> _Check:
    """Return a check of a list that is not empty."""

    def check_each(path: Path, key: str, value: object) -> None:
        if not isinstance(value, list) or not value:
            _refuse(path, key, value, "a list with at least one entry")
        for number, item in enumerate(value):
            check(path, f"{key}[{number}]", item)

    return check_each


def _each_value(check: _Check) -> _Check:
    """Return a check of an object of any names."""

    def check_each(path: Path, key: str, value: object) -> None:
        _is_object(path, key, value)
        assert isinstance(value, dict)
        for name, item in value.items():
            check(path, _join(key, name), item)

    return check_each


def _one_or_all(path: Path, key: str, value: object) -> None:
    """Check a count, or the list of the trials' counts."""
    check = _each_of(_is_whole) if isinstance(value, list) else _is_whole
    check(path, key, value)


_TRAINING: dict[str, _Check] = {
    "weights": _or_null(_is_text),
    "seed": _or_null(_is_whole),
    "versions": _or_null(_is_object),
}


def _is_training(path: Path, key: str, value: object) -> None:
    _check_object(path, key, value, _TRAINING, required=())


#: What is known of the weights and the data, by key; any may be missing.
_ABOUT: dict[str, _Check] = {
    "stage": _is_text,
    "dataset": _is_text,
    "fingerprint": _or_null(_is_text),
    "dataset_trial": _or_null(_is_whole),
    "method": _or_null(_is_text),
    "backbone": _or_null(_is_text),
    "checkpoint": _or_null(_is_text),
    "checkpoint_kind": _or_null(_is_text),
    "embeddings": _or_null(_is_text),
    "epoch": _or_null(_is_whole),
    "image_size": _or_null(_each_of(_is_whole)),
    "interpolation": _or_null(_is_text),
    "trained_on_dataset": _or_null(_is_text),
    "trained_on_trial": _or_null(_is_whole),
    "trial_mismatch": _is_truth,
    "dataset_mismatch": _is_truth,
    "preprocessing_mismatch": _is_truth,
    "synthetic": _or_null(_is_truth),
    "training": _or_null(_is_training),
}
_FILE: dict[str, _Check] = _ABOUT | {"unit": _is_unit, "results": _each_of(_is_object)}
_ROW: dict[str, _Check] = {
    "protocol": _is_text,
    "scores": _each_value(_is_percent),
    "deviation": _or_null(_each_value(_or_null(_is_percent))),
    "trial_scores": _each_of(_each_value(_is_percent)),
    "distance": _or_null(_is_text),
    "removal": _or_null(_is_text),
    "cmc": _or_null(_is_text),
    "gallery_hash": _or_null(_is_text),
    "embedding_size": _or_null(_is_whole),
    "reranking": _or_null(_each_value(_is_number)),
    "trials": _is_whole,
    "queries": _one_or_all,
    "valid_queries": _one_or_all,
    "gallery_images": _one_or_all,
}


def _join(key: str, name: str) -> str:
    return f"{key}.{_shorten(name)}" if key else _shorten(name)


def _name_kind(value: object) -> str:
    """Return what a value is, in the words of JSON; numbers and short texts by themselves."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return f"the text '{_shorten(value)}'"
    return "null" if value is None else _shorten(str(value).lower())


def _shorten(value: object) -> str:
    """Return a text of one line that is not long, whatever a file holds."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(path: Path, key: str, value: object, wanted: str) -> NoReturn:
    raise VIReIDError(
        f"{path}: '{key}' is {_name_kind(value)} instead of {wanted}; give the file as `lightning test` or "
        "`vireid evaluate` wrote it."
    )


def _refuse_missing(path: Path, key: str) -> NoReturn:
    raise VIReIDError(f"{path} is no result file of `lightning test` or `vireid evaluate`: it lacks '{key}'.")
