"""Reading the index files of datasets, with errors that name the file and the line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

import numpy as np

from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample

#: How many faults of one kind a message lists before it only counts them.
SHOWN = 10

_TOLERATED: ContextVar[list[tuple[VIReIDError, set[str]]] | None] = ContextVar("_TOLERATED", default=None)


def shown(items: Iterable[object], limit: int = SHOWN) -> str:
    """Join the first ``limit`` items and count the rest.

    Example:
        >>> shown([1, 2, 3], limit=2)
        '1, 2 and 1 more'
    """
    listed = [str(item) for item in items]
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"


def read_text(dataset: str, path: Path) -> str:
    """Return the text of an index file; a missing, unreadable or empty one is a :class:`VIReIDError` naming it."""
    if not path.is_file():
        raise VIReIDError(
            f"{dataset}: the index file {path} is missing. Copy it from the original download, or correct the root."
        )
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise VIReIDError(f"{dataset}: the index file {path} is not a text file. Copy it again.") from error
    if not text.strip(","):
        raise VIReIDError(f"{dataset}: the index file {path} is empty. Copy it from the original download.")
    return text


def read_numbers(dataset: str, path: Path) -> list[int]:
    """Return the sorted distinct numbers of an index file that separates them by commas, spaces or line ends."""
    words = read_text(dataset, path).replace(",", " ").split()
    for word in words:
        if not word.isdecimal():
            raise VIReIDError(
                f"{dataset}: {path} holds {word!r} where an identity number belongs. It should be numbers separated "
                "by commas; copy it from the original download."
            )
    return sorted({int(word) for word in words})


def read_matrix_numbers(dataset: str, path: Path, variable: str = "id") -> list[int]:
    """Return the sorted distinct numbers of one variable of a MATLAB file."""
    numbers = sorted({int(number) for number in np.asarray(load_matrix(dataset, path, variable)).ravel()})
    if not numbers:
        raise VIReIDError(f"{dataset}: the index file {path} is empty. Copy it from the original download.")
    return numbers


def load_matrix(dataset: str, path: Path, variable: str) -> np.ndarray:
    """Return one variable of a MATLAB file (cell arrays as object arrays)."""
    from scipy.io import loadmat  # 0.2 s to import, and only this needs it

    if not path.is_file():
        raise VIReIDError(
            f"{dataset}: the index file {path} is missing. Copy it from the original download, or correct the root."
        )
    try:
        content = loadmat(str(path))
    except Exception as error:  # scipy raises a different type for every way in which a file can be broken
        raise VIReIDError(f"{dataset}: {path} is not a readable MATLAB file ({error}). Copy it again.") from error
    if variable not in content:
        raise VIReIDError(f"{dataset}: {path} holds no variable {variable!r}. Copy it from the original download.")
    return content[variable]


def read_rows(dataset: str, path: Path, columns: int) -> list[list[str]]:
    """Return the lines of an index file as ``columns`` words; the first word, a path, may contain spaces.

    Args:
        dataset: Name for messages.
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
                f"{dataset}: line {number} of {path} is {line.strip()!r}, but a line should have {columns} parts "
                "separated by spaces, a path first. Copy the file from the original download."
            )
        rows.append([words[0].replace("\\", "/"), *words[1:]])
    return rows


def to_number(dataset: str, word: str, what: str, where: str) -> int:
    """Return ``word`` as an integer, or raise a :class:`VIReIDError` that says what it should have been."""
    try:
        return int(word)
    except ValueError:
        raise VIReIDError(f"{dataset}: {where} has {word!r} where {what} belongs.") from None


@contextmanager
def tolerated_missing_files() -> Iterator[list[tuple[VIReIDError, set[str]]]]:
    """Within, :func:`require_files` raises nothing; yields what it would have raised, each with the missing paths."""
    found: list[tuple[VIReIDError, set[str]]] = []
    token = _TOLERATED.set(found)
    try:
        yield found
    finally:
        _TOLERATED.reset(token)


def require_files(dataset: str, root: Path, paths: Iterable[str], index_file: str) -> None:
    """Raise a :class:`VIReIDError` that lists the paths with no file below ``root``: counted, the first ten shown."""
    names: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in names:  # one listing a folder is far quicker than one question a file, on a network above all
            names[folder] = {entry.name for entry in list_folder(root / folder)}
        if name not in names[folder]:
            missing.append(path)
    if missing:
        error = VIReIDError(
            f"{dataset}: {len(missing)} file{'s' if len(missing) > 1 else ''} listed in {index_file} "
            f"{'are' if len(missing) > 1 else 'is'} missing below {root}: {shown(missing)}. Copy "
            f"{'them' if len(missing) > 1 else 'it'} from the original download, or correct the root."
        )
        if (tolerated := _TOLERATED.get()) is None:
            raise error
        tolerated.append((error, set(missing)))


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder sorted by name, none where it does not exist; hidden files are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_images(folder: Path, suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".bmp")) -> list[str]:
    """Return the sorted names of the image files in a folder, none where it does not exist."""
    return [entry.name for entry in list_folder(folder) if PurePosixPath(entry.name).suffix.lower() in suffixes]


def list_identity_folders(root: Path, folder: str, identities: Iterable[int]) -> list[tuple[str, int]]:
    """Return the path and identity of every image in ``root/folder/{identity:04d}/``, in sorted order.

    Args:
        root: The dataset's folder.
        folder: Relative to it, such as ``cam1``.
        identities: Those wanted; folders of others are not opened.
    """
    wanted = {f"{identity:04d}": identity for identity in identities}
    return [
        (f"{folder}/{entry.name}/{name}", wanted[entry.name])
        for entry in list_folder(root / folder)
        if entry.name in wanted
        for name in list_images(root / folder / entry.name)
    ]


def require_identities(
    dataset: str, root: Path, identities: Sequence[int], samples: Iterable[Sample], listed: str, folders: str
) -> None:
    """Raise a :class:`VIReIDError` that names the identities without any image among ``samples``."""
    found = {sample.identity for sample in samples}
    absent = [identity for identity in identities if identity not in found]
    if absent:
        raise VIReIDError(
            f"{dataset}: {len(absent)} of the {len(identities)} {listed} have no images, as no folder "
            f"{absent[0]:04d} with images is in {folders} below {root} (identities {shown(absent)}). Unpack all "
            "camera folders of the original download there."
        )


def require_disjoint(dataset: str, train: Iterable[int], other: Iterable[int], split: str, where: Path) -> None:
    """Raise a :class:`VIReIDError` if an identity is both trained on and searched for."""
    both = sorted(set(train) & set(other))
    if both:
        raise VIReIDError(
            f"{dataset}: the index files in {where} list {len(both)} identities both for training and for {split}: "
            f"{shown(both)}. Copy the index files from the original download."
        )
