"""Reading image files: any common format, as RGB of one size, and finding the files that cannot be read."""

from __future__ import annotations

import math
import numbers
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vireid_lightning.data.images.headers import FORMATS, HEADER_BYTES, Header, read_header
from vireid_lightning.data.images.resizing import (
    Interpolation,
    check_image_size,
    check_interpolation,
    resize_image,
)
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds
from vireid_lightning.types import MODALITIES, check_modality

#: The values that become black and white.
Limits = tuple[float, float]

#: Most pixels of an image. A PNG of 100 kB can hold a billion, which would take 6 GB of memory to decode.
PIXEL_LIMIT = 100_000_000

#: Most bytes of an image file: as many as that number of pixels takes without compression, in 3 channels of 32 bits.
BYTE_LIMIT = 12 * PIXEL_LIMIT

#: The setting that says which values become black and white.
INTENSITY = "data.intensity_range"

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class _ImageError(VIReIDError):
    """An error that keeps its sentence on its way out of a loading process."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker sends the text of an exception's traceback, and the main process makes an exception of
        # the same class from that text. It ends with the class's name and the message, of which only the message stays.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


class BadImageError(_ImageError):
    """An image file is missing, no regular file, empty, truncated, too large or no image; the message names it."""


class DeepImageError(_ImageError):
    """An image file has more than 8 bits and nothing says which of its values are black and white."""


def read_image(
    path: Path, limits: Limits | None = None, modality: int | None = None, setting: str = INTENSITY
) -> NDArray[np.uint8]:
    """Read an image file of any size, colour or grayscale.

    Orientation follows the file's EXIF tag; transparency is dropped; palettes and CMYK become RGB.

    Args:
        path: The file.
        limits: The values that become 0 and 255 in an image of more than 8 bits; one of 8 bits stays as it is.
        modality: The image's modality, for the message about an image that has more than 8 bits.
        setting: The setting that gives the limits, for the same message.

    Returns:
        (H, W, 3) uint8, RGB; the channels of a grayscale file are equal.

    Raises:
        BadImageError: The file is missing, no regular file, empty, truncated, too large or no image.
        DeepImageError: The file has more than 8 bits and there are no ``limits``.
    """
    check_limits("limits", limits)
    if modality is not None:
        check_modality(modality)
    content = read_content(path)
    header = check_header(path, content)
    _require_limits(path, header, limits, modality, setting)
    values = decode(path, content, header)
    if values.dtype == np.uint8:
        return np.asarray(values)
    assert limits is not None
    return scale_intensity(values, limits)


def check_limits(name: str, limits: object) -> None:
    """Refuse what is neither None nor two finite ascending values.

    Raises:
        VIReIDError: Names them.
    """
    values: Any = limits if isinstance(limits, (list, tuple)) else ()
    if limits is not None and not (
        len(values) == 2
        and all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values)
        and -math.inf < values[0] < values[1] < math.inf
    ):
        said = list(values) if values else repr(limits)
        raise VIReIDError(f"{name} is {said}: give two ascending values, such as [7300, 8240].")


def stat_file(path: Path) -> os.stat_result:
    """Return the status of a regular file; reading anything else might never end, or wait for a writer."""
    try:
        status = path.stat()
    except OSError as error:
        _fail(path, f"cannot be read ({error.strerror})")
    except ValueError:
        _fail(Path(repr(str(path))), "cannot be read, as its name holds a NUL byte", "Correct the name.")
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        _fail(path, f"is no regular file but {kind}")
    return status


def read_content(path: Path) -> bytes:
    """Return the bytes of a regular file that is not empty, or raise a :class:`BadImageError`."""
    size = stat_file(path).st_size
    if size > BYTE_LIMIT:
        _fail(path, f"has {size / 1e9:.1f} GB, more than the {BYTE_LIMIT / 1e9:.1f} that an image can have")
    try:
        content = path.read_bytes()
    except OSError as error:
        _fail(path, f"cannot be read ({error.strerror})")
    if not content:
        _fail(path, "is empty")
    # A JPEG's scan data contains no end marker. OpenCV 4 fills the missing part of a truncated JPEG with grey.
    if content.startswith(_JPEG_START) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
        _fail(path, "is truncated")
    return content


def read_start(path: Path) -> bytes:
    """Return the first bytes of a regular file: all of a TIFF, whose header may lie at its end."""
    stat_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        _fail(path, f"cannot be read ({error.strerror})")
    return read_content(path) if start.startswith((b"II", b"MM")) else start


def check_header(path: Path, content: bytes) -> Header:
    """Return the header of a file's content, or raise a :class:`BadImageError` where it has none or is too large."""
    header = read_header(content)
    if header is None:
        _fail(path, f"is truncated or is not an image of a known format ({', '.join(FORMATS)})")
    if header.width * header.height > PIXEL_LIMIT:
        _fail(
            path,
            f"has {header.width} x {header.height} pixels, more than the limit of {PIXEL_LIMIT // 10**6} megapixels",
            "Make it smaller, or remove it.",
        )
    return header


def can_read_gif() -> bool:
    """Return whether OpenCV decodes GIF, which older builds do not."""
    return any(line.split()[:2] == ["GIF:", "YES"] for line in cv2.getBuildInformation().splitlines())


def decode(path: Path, content: bytes, header: Header) -> NDArray[Any]:
    """Decode a file's content: (H, W, 3) uint8 RGB, or the values of a deeper image, (H, W, 3) of the file's type."""
    # One channel stays one where the image is deep: OpenCV makes no colours of 32-bit numbers.
    flags = cv2.IMREAD_COLOR if header.bits <= 8 else cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or (header.bits > 8 and image.dtype == np.uint8):  # 8 bits of a deeper image are its first ones
        if header.format == "GIF" and not can_read_gif():
            _fail(path, "is a GIF, which this OpenCV cannot decode", "Install a newer opencv-python-headless.")
        deep = f", or is a {header.format} of {header.bits} bits of a kind that OpenCV cannot decode"
        _fail(path, f"is truncated or is not an image{deep if header.bits > 8 else ''}")
    if header.bits <= 8:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    # OpenCV converts the colours of few types, NumPy those of all.
    return np.ascontiguousarray(np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image[:, :, ::-1])


def scale_intensity(values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    """Scale an image of any depth to 8 bits, linearly: the limits become 0 and 255, and so does what lies beyond.

    Values that are no number, as some cameras write for dead pixels, become 0.
    """
    low, high = limits
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255).astype(np.uint8)


class ImageFiles:
    """Images of one size, each read from its file when it is indexed.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths of the image files.
        image_size: Height and width that the images are resized to.
        interpolation: How the images are resized.
        modalities: Modality of each image; none where they are not known.
        limits: For each modality, the values that become black and white in an image of more than 8 bits; None where
            such images are refused.
        setting: The setting that gives the limits, for messages.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        image_size: tuple[int, int],
        interpolation: Interpolation = "bilinear",
        *,
        modalities: Sequence[int] = (),
        limits: tuple[Limits | None, ...] = (None, None),
        setting: str = INTENSITY,
    ) -> None:
        check_image_size(image_size)
        check_interpolation(interpolation)
        check_kinds({"modalities": modalities, "limits": limits}, ImageFiles.__init__)
        for number in set(modalities):
            check_modality(number, "modalities")
        for pair in limits:
            check_limits("limits", pair)
        self.root = root
        self.paths = list(paths)
        self.image_size = image_size
        self.interpolation = interpolation
        self.modalities = list(modalities)
        self.limits = limits
        self.setting = setting

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image at a position.

        Raises:
            BadImageError: The file is missing, no regular file, empty, truncated, too large or no image.
            DeepImageError: The file has more than 8 bits and its modality no limits.
        """
        return resize_image(self._read(position), self.image_size, self.interpolation)

    def choose(self, positions: Sequence[int]) -> ImageFiles:
        """Return the images at some positions."""
        return ImageFiles(
            self.root,
            [self.paths[position] for position in positions],
            self.image_size,
            self.interpolation,
            modalities=[self.modalities[position] for position in positions] if self.modalities else (),
            limits=self.limits,
            setting=self.setting,
        )

    def find_bad(self, threads: int = 16) -> dict[int, str]:
        """Return what is wrong with the files that cannot be read, by position.

        A file whose first and last bytes are those of a complete JPEG or PNG passes; any other is decoded. Damage in
        the middle of a file is therefore found only when the file is read.

        Raises:
            DeepImageError: A file has more than 8 bits and its modality no limits.
        """
        with ThreadPoolExecutor(threads) as pool:
            # Files in the system's cache take less than three seconds, and then no bar is shown.
            bar = tqdm(
                pool.map(self.describe_problem, range(len(self))),
                total=len(self),
                desc="Checking image files",
                delay=3,
                leave=False,
            )
            return {position: problem for position, problem in enumerate(bar) if problem}

    def describe_problem(self, position: int, *, decode: bool = False) -> str:
        """Return what is wrong with the file at a position, or ``""``; ``decode`` decodes it in any case."""
        try:
            if decode or not self._looks_complete(position):
                self._read(position)
        except BadImageError as error:
            return str(error)
        return ""

    def _read(self, position: int) -> NDArray[np.uint8]:
        """Return the image at a position in its own size."""
        return read_image(self.root / self.paths[position], *self._describe(position))

    def _describe(self, position: int) -> tuple[Limits | None, int | None, str]:
        """Return the limits and the modality of the image at a position, and the setting of the limits."""
        modality = self.modalities[position] if self.modalities else None
        return (None if modality is None else self.limits[modality]), modality, self.setting

    def _looks_complete(self, position: int) -> bool:
        """Return whether a file begins and ends like a JPEG or a PNG of a size and depth that can be read."""
        path = self.root / self.paths[position]
        try:
            stat_file(path)
            with path.open("rb") as file:
                start = file.read(HEADER_BYTES)
                if len(start) < len(_PNG_START):
                    return False
                file.seek(-len(_PNG_END), os.SEEK_END)
                end = file.read()
        except OSError:
            return False  # reading the whole file names the reason
        whole_jpeg = start.startswith(_JPEG_START) and end.endswith(_JPEG_END)
        if not (whole_jpeg or (start.startswith(_PNG_START) and end == _PNG_END)):
            return False
        if read_header(start) is not None:  # None: a JPEG with much before its image, which reading it checks
            _require_limits(path, check_header(path, start), *self._describe(position))
        return True


def _require_limits(path: Path, header: Header, limits: Limits | None, modality: int | None, setting: str) -> None:
    """Refuse an image of more than 8 bits where nothing says which of its values are black and white."""
    if header.bits <= 8 or limits is not None:
        return
    if modality is None:
        remedy = "convert it to 8 bits."
    else:
        setting = f"--{setting}.{MODALITIES[modality]}"
        remedy = (
            f'set {setting} "[LOW, HIGH]" to two values, or {setting}_percentiles "[0.5, 99.5]" to percentiles of the '
            "training images."
        )
    raise DeepImageError(
        f"The image file {path} has {header.bits} bits, and nothing says which of its values are black and white: "
        + remedy
    )


def _fail(path: Path, problem: str, remedy: str = "Restore it from the dataset's archive.") -> NoReturn:
    """Raise an error that names the file."""
    raise BadImageError(f"The image file {path} {problem}. {remedy}")
