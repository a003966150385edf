"""Which images a user means: files, folders, patterns and CSV files without identities."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vireid_lightning.data.datasets.index_files import read_table, to_number
from vireid_lightning.data.datasets.manifest import MODALITY_WORDS
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.types import UNKNOWN, Sample

#: Files that a folder is searched for; a file that is named itself may have any suffix.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

_ADVICE = "Give image files, folders, patterns such as 'camera3/*.jpg', or a CSV file with the column path."


def parse_modality(word: str | int) -> int:
    """Return the number of a modality, given by its number or by one of the words that a manifest may have.

    Raises:
        VIReIDError: There is no such modality.

    Example:
        >>> parse_modality("infrared"), parse_modality("rgb")
        (1, 0)
    """
    if word in (0, 1):
        return int(word)
    found = MODALITY_WORDS.get(str(word).strip().lower())
    if found is None:
        hint = did_you_mean(str(word), MODALITY_WORDS)
        raise VIReIDError(f"The modality '{word}' is unknown; give one of {', '.join(MODALITY_WORDS)}.{hint}")
    return found


def list_images(given: Iterable[str | Path], modality: str | int | None = None) -> tuple[Path, list[Sample]]:
    """Return the images that paths stand for, each once, in the order in which they are given.

    Args:
        given: Image files; folders, which are searched with all folders in them and sorted by name; patterns such as
            ``camera3/*.jpg`` or ``**/*.png``; CSV files, which have a column ``path`` (relative to the file's folder)
            and may have the columns ``modality``, ``camera`` and ``identity``, this one of whole numbers.
        modality: Modality of the images for which no CSV file says one, by its name or number.

    Returns:
        The folder that all paths are relative to, and the samples.

    Raises:
        VIReIDError: A path leads to nothing, a row cannot be read, or an image's modality is not known.
    """
    known = None if modality is None else parse_modality(modality)
    rows: dict[Path, tuple[int, int, int]] = {}
    for item in given:
        for path, row in _expand(Path(item).expanduser(), known):
            rows.setdefault(path, row)
    if not rows:
        raise VIReIDError(f"No image is given. {_ADVICE}")
    root = Path(os.path.commonpath([path.parent for path in rows]))
    return root, [
        Sample(path.relative_to(root).as_posix(), identity, kind, camera)
        for path, (identity, kind, camera) in rows.items()
    ]


def _expand(item: Path, modality: int | None) -> list[tuple[Path, tuple[int, int, int]]]:
    """Return the absolute paths of the images that one path stands for, each with identity, modality and camera."""
    if item.suffix.lower() == ".csv" and item.is_file():
        return _read_rows(item, modality)
    if item.is_dir():
        paths = [path for path in sorted(item.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not paths:
            raise VIReIDError(f"The folder {item} holds no image ({', '.join(SUFFIXES)}). {_ADVICE}")
    elif item.exists() or not glob.has_magic(str(item)):
        paths = [item]  # one that is missing is told as an image that cannot be read
    else:
        paths = [Path(name) for name in sorted(_find(str(item))) if Path(name).is_file()]
        if not paths:
            raise VIReIDError(f"No file fits the pattern '{item}'. {_ADVICE}")
    if modality is None:
        raise VIReIDError(f"The modality of {item} is not given; say visible or infrared (--modality infrared).")
    return [(_make_absolute(path), (UNKNOWN, modality, UNKNOWN)) for path in paths]


def _find(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern


def _make_absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links, whose names the user gave


def _read_rows(file: Path, modality: int | None) -> list[tuple[Path, tuple[int, int, int]]]:
    found = []
    for line, row in read_table("The list of images", file, _find_columns(file)):
        where = f"line {line} of {file}"
        word = row.get("modality", "")
        if not row["path"] or "\0" in row["path"]:
            raise VIReIDError(f"The list of images: {where} has no path. Give one, relative to {file.parent}.")
        if not word and modality is None:
            raise VIReIDError(
                f"The list of images: {where} has no modality. Add a column modality, or give one for all images "
                "(--modality infrared)."
            )
        try:
            kind = parse_modality(word) if word else modality
        except VIReIDError as error:
            raise VIReIDError(f"The list of images: {where}: {error}") from None
        assert kind is not None
        numbers = [
            to_number("The list of images", row[name], f"a whole number ({name})", where) if row.get(name) else UNKNOWN
            for name in ("identity", "camera")
        ]
        path = file.parent / row["path"].replace("\\", "/")
        found.append((_make_absolute(path), (numbers[0], kind, numbers[1])))
    if not found:
        raise VIReIDError(f"The list of images {file} has a header but no rows. List one image a line.")
    return found


def _find_columns(file: Path) -> Sequence[str]:
    """Return the columns that are read: those that the first line has; one without ``path`` is told by the reader."""
    with file.open("rb") as content:
        header = content.readline(10_000).decode("utf-8", "replace").replace("\0", "")
    words = {word.strip().strip('"\ufeff') for word in header.replace(";", ",").replace("\t", ",").split(",")}
    return ["path", *(name for name in ("modality", "camera", "identity") if name in words)]
