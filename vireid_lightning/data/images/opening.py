"""Opening the images of a split: all files are checked before the first is used, and cached if a folder is given."""

from __future__ import annotations

import warnings

from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.errors import VIReIDError
from vireid_lightning.printable import make_printable


def open_all(files: ImageFiles, cache_dir: str | None, *, advice: str) -> ImageFiles | ImageCache:
    """Return images all of which are needed.

    Args:
        files: The images.
        cache_dir: Folder for a cache of the images; None: they are read from their files.
        advice: Last sentence of the message about an unreadable file.

    Raises:
        VIReIDError: A file cannot be read; the message names the first.
    """
    if cache_dir is None:
        _refuse(files.find_bad(), advice)
        return files
    cache = ImageCache(cache_dir, files)
    if not cache.is_fresh():
        _refuse(files.find_bad(), advice)  # now, rather than after the minutes that building takes
    cache.build()
    _refuse({position: files.describe_problem(position, decode=True) for position in cache.bad}, advice)
    return cache


def open_readable(files: ImageFiles, cache_dir: str | None) -> tuple[list[int], ImageFiles | ImageCache]:
    """Return the positions of the files that can be read, and their images; warn with the number of the others.

    Files that turn out unreadable only when decoded stay in; a cache lists them as ``bad``.

    Args:
        files: The images.
        cache_dir: Folder for a cache of the images; None: they are read from their files.
    """
    bad = files.find_bad()
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(files)} training images cannot be read and are left out (on_bad_image: skip). "
            f"The first: {make_printable(next(iter(bad.values())))}",
            stacklevel=3,
        )
    kept = [position for position in range(len(files)) if position not in bad]
    readable = files.choose(kept)
    return kept, readable if cache_dir is None else ImageCache(cache_dir, readable).build()


def _refuse(bad: dict[int, str], advice: str) -> None:
    """Raise an error that names the first unreadable file and counts the others, if there are any."""
    if bad:
        others = f" {len(bad) - 1} more cannot be read." if len(bad) > 1 else ""
        raise VIReIDError(f"{next(iter(bad.values()))}{others} {advice}")
