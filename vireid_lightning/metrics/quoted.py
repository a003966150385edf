"""Numbers that a user took from elsewhere, in a CSV file, to stand beside results."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.files import is_file


def read_quoted(
    path: str | Path, protocols: Sequence[str], measures: Sequence[str]
) -> dict[str, dict[tuple[str, str], float]]:
    """Return the scores of a CSV file by method, and of each by protocol and measure.

    Args:
        path: The file, in UTF-8, with the columns method, protocol and measures. A value may be left empty.
        protocols: The protocols that may occur.
        measures: The columns that are read; others are left alone.

    Raises:
        VIReIDError: Names the file, the row and what is wrong there.
    """
    path = Path(path)
    if not is_file(path):
        raise VIReIDError(
            f"There is no file {path}; give --quoted a CSV file with the columns method,protocol,rank1,mAP."
        )
    try:
        lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        columns, rows = list(lines.fieldnames or ()), list(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VIReIDError(f"{path} cannot be read as a CSV file in UTF-8: {error}; mend it.") from error
    found = ", ".join(map(str, columns))[:200] or "none"
    for column in ("method", "protocol", *measures):
        if columns.count(column) != 1:
            raise VIReIDError(
                f"{path} has the columns {found}; it needs 'method', 'protocol' and {', '.join(measures)}, each once."
            )
    scores: dict[str, dict[tuple[str, str], float]] = {}
    for number, row in enumerate(rows, start=2):
        place = f"{path}, row {number}"
        if None in row or None in row.values():
            raise VIReIDError(f"{place}: it has another number of values than the header; quote values with commas.")
        method, protocol = (" ".join(row[column].split()) for column in ("method", "protocol"))
        if not method:
            raise VIReIDError(f"{place}: the method has no name; give one.")
        if protocol not in protocols:
            raise VIReIDError(
                f"{place}: '{protocol}' is none of the compared protocols, {', '.join(protocols)}."
                f"{did_you_mean(protocol, protocols)}"
            )
        for measure in measures:
            text = row[measure].strip()
            cells = scores.setdefault(method, {})
            if (protocol, measure) in cells:
                raise VIReIDError(f"{place}: {method} has two values of {measure} for {protocol}; leave one out.")
            if text:  # a paper may not give all of them
                cells[protocol, measure] = _read_percent(text, f"{place}: {measure}")
    return scores


def _read_percent(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise VIReIDError(f"{place} is '{text}'; give a number from 0 to 100, or nothing.")
    return value
