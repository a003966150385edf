"""Reading the index files of datasets, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import csv
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.datasets.matlab import read_variables
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file

#: How many faults of one kind a message lists before it only counts them.
LIST_LIMIT = 10

# Identities and cameras become numbers of 64 bits.
_MOST_DIGITS = 18

#: Encodings that spreadsheet programs still write, tried to name those that a file can be in.
_LEGACY = ("gbk", "big5", "shift_jis", "cp1251", "cp1252")


def join_first(items: Iterable[object], limit: int = LIST_LIMIT) -> str:
    """Join the first ``limit`` items and count the rest.

    Example:
        >>> join_first([1, 2, 3], limit=2)
        '1, 2 and 1 more'
    """
    words = [str(item) for item in items]
    text = ", ".join(words[:limit])
    return text if len(words) <= limit else f"{text} and {len(words) - limit} more"


def is_outside(path: str) -> bool:
    """Return whether a path's words alone lead out of the folder that it should be relative to.

    Example:
        >>> is_outside("../a.jpg"), is_outside("C:/a.jpg"), is_outside("cam1/a.jpg")
        (True, True, False)
    """
    is_drive = path[1:2] == ":" and path[0].isalpha()
    return is_drive or path.startswith("/") or posixpath.normpath(path).split("/")[0] == ".."


def read_text(dataset: str, path: Path, encoding: str | None = None, *, advice: str = "") -> str:
    """Return the text of an index file; a missing, unreadable or empty one is a :class:`VIReIDError` naming it.

    Args:
        dataset: The dataset's name, for messages.
        path: The file.
        encoding: The file's encoding; None: UTF-8, or UTF-16 with a byte order mark.
        advice: How to name the encoding of a file that is in neither; its last words are followed by those that fit.
    """
    if not is_file(path):
        raise VIReIDError(
            f"{dataset}: the index file {path} is missing. Copy it from the original download, or correct the root."
        )
    text = _decode(dataset, path, path.read_bytes(), encoding, advice).strip()
    if not text.strip(","):
        raise VIReIDError(f"{dataset}: the index file {path} is empty. Copy it from the original download.")
    return text


def _decode(dataset: str, path: Path, content: bytes, encoding: str | None, advice: str) -> str:
    """Decode UTF-8, UTF-16 that begins with a byte order mark, or what is given; bytes tell no other encoding."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    found = "utf-16" if is_utf16 and not content.startswith(codecs.BOM_UTF32_LE) else "utf-8-sig"
    try:
        text = content.decode(encoding or found)
    except (LookupError, ValueError) as error:
        if not isinstance(error, UnicodeDecodeError):
            raise VIReIDError(f"{dataset}: there is no encoding {encoding!r}; give one such as utf-8 or gbk.") from None
        if encoding is not None:
            raise VIReIDError(
                f"{dataset}: the index file {path} is not in {encoding}, from byte {error.start + 1} on. Give the "
                "encoding that it was saved in."
            ) from error
        if found != "utf-16" and b"\0" not in content:
            fitting = " or ".join(name for name in _LEGACY if _fits(content, name))
            remedy = f"{advice} {fitting}, or save it as UTF-8" if advice and fitting else "Save it as UTF-8"
            raise VIReIDError(
                f"{dataset}: the index file {path} is not in UTF-8, from byte {error.start + 1} on"
                f"{f', but could be in {fitting}' if fitting else ''}. {remedy}, in Excel as 'CSV UTF-8'."
            ) from error
        raise VIReIDError(f"{dataset}: the index file {path} is not a text file. Copy it again.") from error
    if text.count("\0") > len(text) // 4:
        raise VIReIDError(
            f"{dataset}: the index file {path} is in UTF-16 or UTF-32 and does not begin with the byte order mark that "
            "would say which. Save it as UTF-8."
        )
    return text


def _fits(content: bytes, encoding: str) -> bool:
    """Return whether all bytes can be of an encoding."""
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def read_table(
    dataset: str, path: Path, columns: Sequence[str], encoding: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the words of each row of a table whose first line names its columns.

    Commas, semicolons or tabs separate the columns, whichever the first line has; further columns are ignored.

    Args:
        dataset: The dataset's name, for messages.
        path: The file.
        columns: The columns that it must have, in any order.
        encoding: The file's encoding; None: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        VIReIDError: The file is no text, its separator is none of the three, a column is missing, or a quotation mark
            is not closed.
    """
    lines = read_text(dataset, path, encoding, advice="Set encoding to the one it was saved in, probably").splitlines()
    delimiter = max(",;\t", key=lambda character: len(set(_split_header(lines[0], character)) & set(columns)))
    header = _split_header(lines[0], delimiter)
    lacking = [column for column in columns if column not in header]
    if lacking:
        other = next((mark for mark in "|:" if set(columns) <= set(_split_header(lines[0], mark))), "")
        other = other or (" " if set(columns) <= set(lines[0].split()) else "")
        if other:
            raise VIReIDError(
                f"{dataset}: the columns of {path} are separated by {other!r}. Separate them by commas, semicolons or "
                "tabs."
            )
        raise VIReIDError(
            f"{dataset}: the header of {path} lacks {', '.join(lacking)}. Its first line should be {','.join(columns)}."
        )
    reader = csv.DictReader(lines[1:], fieldnames=header, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            yield reader.line_num + 1, {column: (row[column] or "").strip() for column in columns}
    except csv.Error as error:
        raise VIReIDError(
            f"{dataset}: line {reader.reader.line_num + 1} of {path} cannot be read as a row of a CSV file ({error}). "
            "Correct its quotation marks."
        ) from error


def _split_header(line: str, delimiter: str) -> list[str]:
    """Return the names of the columns of a header line."""
    return [name.strip() for name in next(csv.reader([line[:10_000]], delimiter=delimiter, skipinitialspace=True))]


def read_numbers(dataset: str, path: Path) -> list[int]:
    """Return the sorted distinct numbers of an index file that separates them by commas, spaces or line ends."""
    words = read_text(dataset, path).replace(",", " ").split()
    for word in words:
        if not word.isdecimal() or len(word) > _MOST_DIGITS:
            raise VIReIDError(
                f"{dataset}: {path} holds {word[:99]!r} where an identity number belongs. It should be numbers "
                "separated by commas; copy it from the original download."
            )
    return sorted({int(word) for word in words})


def read_matrix_numbers(dataset: str, path: Path, variable: str = "id") -> list[int]:
    """Return the sorted distinct numbers of one variable of a MATLAB file."""
    numbers = sorted(set(to_whole(dataset, path, load_matrix(dataset, path, variable)).ravel().tolist()))
    if not numbers:
        raise VIReIDError(f"{dataset}: the index file {path} is empty. Copy it from the original download.")
    return numbers


def load_matrix(dataset: str, path: Path, variable: str) -> NDArray[Any]:
    """Return one variable of a MATLAB file (cell arrays as object arrays)."""
    if not is_file(path):
        raise VIReIDError(
            f"{dataset}: the index file {path} is missing. Copy it from the original download, or correct the root."
        )
    try:
        content = read_variables(path.read_bytes())
    except (OSError, ValueError) as error:
        raise VIReIDError(f"{dataset}: {path} is not a readable MATLAB file ({error}). Copy it again.") from error
    if variable not in content:
        raise VIReIDError(f"{dataset}: {path} holds no variable {variable!r}. Copy it from the original download.")
    return content[variable]


def to_whole(dataset: str, path: Path, values: object) -> NDArray[np.int64]:
    """Return the whole numbers that a variable or a cell of a MATLAB file holds, of any shape.

    Raises:
        VIReIDError: It holds anything but whole numbers from 0.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "iuf" or not bool(((found >= 0) & (found < 10**_MOST_DIGITS)).all()):
        numbers = None
    else:
        numbers = found.astype(np.int64)
    if numbers is None or not bool((numbers == found).all()):
        raise VIReIDError(
            f"{dataset}: {path} holds {' '.join(str(values).split())[:80]!r} where whole numbers from 0 belong. "
            "Copy it from the original download."
        )
    return numbers


def read_rows(dataset: str, path: Path, columns: int) -> list[list[str]]:
    """Return the lines of an index file as ``columns`` words; the first word, a path, may contain spaces.

    Args:
        dataset: The dataset's name, for messages.
        path: The index file.
        columns: Number of words in a line.
    """
    rows = []
    for number, line in enumerate(read_text(dataset, path).splitlines(), start=1):
        if not line.strip():
            continue
        words = line.strip().rsplit(maxsplit=columns - 1)
        if len(words) != columns:
            raise VIReIDError(
                f"{dataset}: line {number} of {path} is {line.strip()[:200]!r}, but a line should have {columns} parts "
                "separated by spaces, a path first. Copy the file from the original download."
            )
        listed = words[0].replace("\\", "/")
        if is_outside(listed) or "\0" in listed:
            raise VIReIDError(
                f"{dataset}: line {number} of {path} lists {listed[:200]!r}, which leads out of the dataset's folder. "
                "Copy the file from the original download."
            )
        rows.append([listed, *words[1:]])
    return rows


def to_number(dataset: str, word: str, what: str, where: str) -> int:
    """Return ``word`` as an integer, or raise a :class:`VIReIDError` that says what it should have been."""
    try:
        if len(word) > _MOST_DIGITS:
            what += f" of at most {_MOST_DIGITS} digits"
            raise ValueError
        return int(word)
    except ValueError:
        word = word[:99]
        raise VIReIDError(f"{dataset}: {where} has {word!r} where {what} belongs.") from None


def require_disjoint(dataset: str, train: Iterable[int], other: Iterable[int], split: str, where: Path) -> None:
    """Raise a :class:`VIReIDError` if an identity is both trained on and searched for."""
    both = sorted(set(train) & set(other))
    if both:
        raise VIReIDError(
            f"{dataset}: the index files in {where} list {len(both)} identities both for training and for {split}: "
            f"{join_first(both)}. Copy the index files from the original download."
        )
