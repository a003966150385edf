"""A cache of decoded, resized images: one memory-mapped file that all workers and ranks of a machine share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from vireid_lightning.data.images.reading import BadImageError, ImageFiles, stat_file
from vireid_lightning.errors import VIReIDError

#: To be raised when the format or the way of reading and resizing changes, so that older caches are rebuilt.
_VERSION = 2  # 2: Pillow's filters under the names that OpenCV's kernels had; more than 8 bits scaled by limits

#: The images start here, a multiple of every system's page size below 64 KiB.
_HEADER_BYTES = 4096

#: Number of images decoded before they are written, so that memory stays bounded however slow the disk is.
_CHUNK = 256


class ImageCache:
    """The images of :class:`~vireid_lightning.data.images.reading.ImageFiles`, decoded and resized once.

    The file's name follows from the root, the list of paths, the size, the interpolation and the limits of images of
    more than 8 bits, so settings with other images never share a file. Its header carries a fingerprint of every file's
    size and time of change. A cache that is missing or stale is built by :meth:`build`: under a lock, so that one
    process builds while others wait for it, and under another name until it is complete, so that no process reads half
    of it. A build that was stopped goes on with the images that are missing, if no file has changed.

    It is pickled by its path, so that spawned workers map the same file. Images are read-only.

    Layout of the file: a header of 4,096 bytes with JSON, the images as (N, H, W, 3) uint8, and N bytes that are 1
    where an image could not be read.

    Args:
        folder: Folder of the cache files; made if it is missing.
        files: The images to cache.

    Raises:
        BadImageError: An image file is missing.

    Example:
        >>> cache = ImageCache("cache", ImageFiles(root, paths, (384, 128)))  # doctest: +SKIP
        >>> cache.build()[0].shape  # doctest: +SKIP
        (384, 128, 3)
    """

    def __init__(self, folder: str | Path, files: ImageFiles) -> None:
        self.files = files
        self.shape = (len(files), *files.image_size, 3)
        self.fingerprint = _hash_files(files)
        settings = [files.image_size, files.interpolation, files.limits, files.modalities]
        identity = json.dumps([str(files.root.resolve()), files.paths, *settings])
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        height, width = files.image_size
        self.path = Path(folder).expanduser() / f"{files.root.name}-{height}x{width}-{key}.images"
        self._mapped: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None  # what `_map` returns, once it ran

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping out, which would be copied with its content."""
        return {**self.__dict__, "_mapped": None}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image at a position, read-only.

        Raises:
            BadImageError: The file could not be read when the cache was built.
            VIReIDError: The cache was removed, replaced or cut short since then.
        """
        images, bad = self._mapped or self._map()
        if bad[position]:
            return self.files[position]  # raises, and says what is wrong
        # The system ends a process, without a word, that reads a mapped file beyond its end.
        if cast("mmap", images.base).size() < _HEADER_BYTES + self._count_bytes():
            raise VIReIDError(f"The image cache {self.path} was cut short while in use: start again, to build it anew.")
        image: NDArray[np.uint8] = images[position]
        return image

    @property
    def bad(self) -> list[int]:
        """Positions of the files that could not be read when the cache was built."""
        _, bad = self._mapped or self._map()
        return [int(position) for position in np.flatnonzero(bad)]

    def is_fresh(self) -> bool:
        """Return whether the cache file exists, is complete and belongs to the files as they are now."""
        if _read_header(self.path) != self._make_header():
            return False
        return self.path.stat().st_size == _HEADER_BYTES + self._count_bytes() + len(self)

    def build(self, threads: int | None = None) -> ImageCache:
        """Build the cache unless it is fresh.

        Args:
            threads: Number of images decoded at once; None: one for each CPU core.

        Returns:
            The cache itself.

        Raises:
            VIReIDError: The folder cannot be written or the disk has too little space.
        """
        try:
            if self.is_fresh():
                return self
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                if not self.is_fresh():
                    self._write(threads or os.cpu_count() or 1)
        except OSError as error:
            raise VIReIDError(
                f"The image cache {self.path} cannot be written ({error.strerror or error}). Set cache_dir to a folder "
                "on another disk, or to null to do without."
            ) from error
        return self

    def _write(self, threads: int) -> None:
        """Write the cache under another name, from where a stopped build left it, then put it in its place."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        written = self._count_written(partial)
        needed, free = self._count_bytes(len(self) - written), shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise VIReIDError(
                f"The image cache needs {needed / 1e9:.1f} GB, but the disk of {self.path.parent} has {free / 1e9:.1f} "
                "GB free. Set cache_dir to a folder on another disk, or to null to do without."
            )
        try:
            with partial.open("r+b" if written else "w+b") as file:
                self._write_images(file, written, threads)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk gets its space back
            raise
        self._mapped = None
        partial.replace(self.path)

    def _count_written(self, partial: Path) -> int:
        """Return how many images a stopped build of the same files has written."""
        header = _read_header(partial)
        written = header.pop("written", 0)
        return written if header == self._make_header() else 0

    def _write_images(self, file: BinaryIO, written: int, threads: int) -> None:
        """Write the images that are missing, which of them could not be read, and at last the header.

        After each chunk the header says how many images are safe on the disk, whatever happens to the process or the
        machine.
        """
        if not written:
            file.truncate(_HEADER_BYTES + self._count_bytes() + len(self))  # no image is bad
        blank = np.zeros(self.shape[1:], dtype=np.uint8)
        with (
            ThreadPoolExecutor(threads) as pool,  # decoding and resizing release Python's lock
            tqdm(initial=written, total=len(self), desc="Building image cache") as progress,
        ):
            for start in range(written, len(self), _CHUNK):
                positions = range(start, min(start + _CHUNK, len(self)))
                bad = np.zeros(len(positions), dtype=np.uint8)
                file.seek(_HEADER_BYTES + self._count_bytes(start))
                for place, image in enumerate(pool.map(self._decode, positions)):
                    bad[place] = image is None
                    file.write((blank if image is None else np.ascontiguousarray(image)).data)
                    progress.update()
                file.seek(_HEADER_BYTES + self._count_bytes() + start)
                file.write(bad.data)
                _sync(file)
                if positions.stop < len(self):
                    _write_header(file, {**self._make_header(), "written": positions.stop})
        _write_header(file, self._make_header())

    def _decode(self, position: int) -> NDArray[np.uint8] | None:
        """Return an image, None where its file cannot be read."""
        try:
            return self.files[position]
        except BadImageError:
            return None  # recorded as bad; what opens the cache decides what that means

    def _make_header(self) -> dict[str, Any]:
        """Return what the header of a fresh cache says."""
        return {"version": _VERSION, "shape": list(self.shape), "fingerprint": self.fingerprint}

    def _count_bytes(self, images: int | None = None) -> int:
        """Return the size of so many images, or of all, in bytes."""
        count, height, width, channels = self.shape
        return (count if images is None else images) * height * width * channels

    def _map(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Map the file; return the images, and 1 for each that could not be read."""
        if not self.is_fresh():
            raise VIReIDError(f"The image cache {self.path} was removed or replaced while in use: start again.")
        images = np.memmap(self.path, dtype=np.uint8, mode="r", offset=_HEADER_BYTES, shape=self.shape)
        offset = _HEADER_BYTES + self._count_bytes()
        bad = np.array(np.memmap(self.path, dtype=np.uint8, mode="r", offset=offset, shape=(len(self),)))
        self._mapped = images, bad
        return self._mapped


def _read_header(path: Path) -> dict[str, Any]:
    """Return the header of a cache file, empty where there is none."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(_HEADER_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no header of a cache
        return {}
    return header if isinstance(header, dict) else {}


def _write_header(file: BinaryIO, header: dict[str, Any]) -> None:
    """Write the header, safely on the disk."""
    file.seek(0)
    file.write(json.dumps(header).encode().ljust(_HEADER_BYTES))
    _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _hash_files(files: ImageFiles) -> str:
    """Return a hash of every file's size and time of change."""
    digest = hashlib.sha256()
    for path in files.paths:
        status = stat_file(files.root / path)
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
