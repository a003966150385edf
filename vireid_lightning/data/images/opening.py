"""Opening the images of a split: every file is checked before the first is used, and all are cached if wanted."""

from __future__ import annotations

import warnings

from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.reading import ImageFiles
from vireid_lightning.errors import VIReIDError


def open_all(files: ImageFiles, cache_dir: str | None, *, advice: str) -> ImageFiles | ImageCache:
    """Return images of which every single one is needed.

    Args:
        files: The images.
        cache_dir: Folder for a cache of them; None: they are read from their files.
        advice: What the message about an unreadable file ends with.

    Raises:
        VIReIDError: A file cannot be read; the message names the first.
    """
    if cache_dir is None:
        _refuse(files.find_bad(), advice)
        return files
    cache = ImageCache(cache_dir, files)
    if not cache.is_fresh():
        _refuse(files.find_bad(), advice)  # rather than after the minutes that building takes
    cache.build()
    _refuse({position: files.problem(position, decode=True) for position in cache.bad}, advice)
    return cache


def open_readable(files: ImageFiles, cache_dir: str | None) -> tuple[list[int], ImageFiles | ImageCache]:
    """Return the positions of the files that can be read, and their images; warn with the number of the others.

    Files that turn out unreadable only when decoded stay in; a cache lists them as ``bad``.

    Args:
        files: The images.
        cache_dir: Folder for a cache of them; None: they are read from their files.
    """
    bad = files.find_bad()
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(files)} training images cannot be read and are left out (on_bad_image: skip). "
            f"The first: {next(iter(bad.values()))}",
            stacklevel=3,
        )
    kept = [position for position in range(len(files)) if position not in bad]
    readable = ImageFiles(files.root, [files.paths[p] for p in kept], files.image_size, files.interpolation)
    return kept, readable if cache_dir is None else ImageCache(cache_dir, readable).build()


def _refuse(bad: dict[int, str], advice: str) -> None:
    if bad:
        others = f" {len(bad) - 1} more cannot be read." if len(bad) > 1 else ""
        raise VIReIDError(f"{next(iter(bad.values()))}{others} {advice}")
