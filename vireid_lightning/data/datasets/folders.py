"""Listing the folders of datasets, and finding what an index file lists and they lack."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from vireid_lightning.data.datasets.index_files import join_first
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import Sample

#: Within :func:`tolerate_missing_files`, what :func:`require_files` found missing; None elsewhere.
_TOLERATED: ContextVar[list[tuple[VIReIDError, set[str]]] | None] = ContextVar("_TOLERATED", default=None)


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
        folder: A folder relative to ``root``, such as ``cam1``.
        identities: The identities to list; the folders of others are not opened.
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
    """Raise a :class:`VIReIDError` that names the identities without any image among ``samples``.

    Args:
        dataset: The dataset's name, for the message.
        root: The dataset's folder.
        identities: The identities that should have images.
        samples: The images found.
        listed: What ``identities`` are, for the message, such as ``identities of idx/test_id.txt``.
        folders: Where their folders should be, for the message.
    """
    found = {sample.identity for sample in samples}
    absent = [identity for identity in identities if identity not in found]
    if absent:
        raise VIReIDError(
            f"{dataset}: {len(absent)} of the {len(identities)} {listed} have no images, as no folder "
            f"{absent[0]:04d} with images is in {folders} below {root} (identities {join_first(absent)}). Unpack all "
            "camera folders of the original download there."
        )


def require_inside(dataset: str, root: Path, paths: Iterable[str], index_file: str, remedy: str) -> None:
    """Raise a :class:`VIReIDError` if a path leaves ``root`` by a link.

    Args:
        dataset: The dataset's name, for the message.
        root: The dataset's folder.
        paths: Paths that an index file lists.
        index_file: The index file's name, for the message.
        remedy: Last sentence of the message.
    """
    top = Path(os.path.realpath(root))
    links: dict[str, set[str] | None] = {}  # by folder: its entries that are links; None: the folder is outside
    outside = []
    for path in paths:
        folder, name = posixpath.split(path)
        if folder not in links:
            inside = Path(os.path.realpath(root / folder)).is_relative_to(top)
            links[folder] = {e.name for e in list_folder(root / folder) if e.is_symlink()} if inside else None
        linked = links[folder]
        if linked is None or (name in linked and not Path(os.path.realpath(root / path)).is_relative_to(top)):
            outside.append(path)
    if outside:
        raise VIReIDError(
            f"{dataset}: {len(outside)} path{'s' if len(outside) > 1 else ''} of {index_file} lead"
            f"{'' if len(outside) > 1 else 's'} out of the dataset's folder {root} by a link: {join_first(outside)}. "
            + remedy
        )


def require_files(dataset: str, root: Path, paths: Iterable[str], index_file: str) -> None:
    """Raise a :class:`VIReIDError` that counts the paths with no file below ``root`` and names the first ten."""
    names: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = posixpath.split(path)
        if folder not in names:  # listing a folder once is far quicker than looking for each file, above all remotely
            names[folder] = {entry.name for entry in list_folder(root / folder)}
        if name not in names[folder]:
            missing.append(path)
    if missing:
        error = VIReIDError(
            f"{dataset}: {len(missing)} file{'s' if len(missing) > 1 else ''} listed in {index_file} "
            f"{'are' if len(missing) > 1 else 'is'} missing below {root}: {join_first(missing)}. Copy "
            f"{'them' if len(missing) > 1 else 'it'} from the original download, or correct the root."
        )
        if (tolerated := _TOLERATED.get()) is None:
            raise error
        tolerated.append((error, set(missing)))


@contextmanager
def tolerate_missing_files() -> Iterator[list[tuple[VIReIDError, set[str]]]]:
    """Within, :func:`require_files` raises nothing; yields what it would have raised, each with the missing paths."""
    found: list[tuple[VIReIDError, set[str]]] = []
    token = _TOLERATED.set(found)
    try:
        yield found
    finally:
        _TOLERATED.reset(token)
