"""Reading image files: any format that OpenCV knows, as RGB of one size, and finding the files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vireid_lightning.errors import VIReIDError

Interpolation = Literal["bilinear", "bicubic", "area", "lanczos"]

#: OpenCV's number of each interpolation.
INTERPOLATIONS: dict[str, int] = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class BadImageError(VIReIDError):
    """An image file is missing, empty, truncated or no image; the message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker sends the text of an exception's traceback, and the main process makes an exception of
        # the same class from that text. It ends with the class's name and the message, of which only the message stays.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file of any size, colour or grayscale.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8, RGB; the channels of a grayscale file are equal.

    Raises:
        BadImageError: The file is missing, empty, truncated or no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        _fail(path, f"cannot be read ({error.strerror})")
    if not content:
        _fail(path, "is empty")
    # A JPEG's scan data contains no end marker. OpenCV 4 fills the missing part of a truncated JPEG with grey.
    if content.startswith(_JPEG_START) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
        _fail(path, "is truncated")
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        _fail(path, "is truncated or is not an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def resize_image(
    image: NDArray[np.uint8], image_size: tuple[int, int], interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Resize an (H, W, 3) image to ``image_size`` (height, width), ignoring its aspect ratio as the field does."""
    height, width = image_size
    if image.shape[:2] == image_size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation]), dtype=np.uint8)


class ImageFiles:
    """Images of one size, each read from its file when it is indexed.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths of the image files.
        image_size: Height and width that the images are resized to.
        interpolation: How the images are resized.
    """

    def __init__(
        self, root: Path, paths: Sequence[str], image_size: tuple[int, int], interpolation: Interpolation = "bilinear"
    ) -> None:
        self.root = root
        self.paths = list(paths)
        self.image_size = image_size
        self.interpolation = interpolation

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image at a position.

        Raises:
            BadImageError: The file is missing, empty, truncated or no image.
        """
        return resize_image(read_image(self.root / self.paths[position]), self.image_size, self.interpolation)

    def find_bad(self, threads: int = 16) -> dict[int, str]:
        """Return what is wrong with the files that cannot be read, by position.

        A file whose first and last bytes are those of a complete JPEG or PNG passes; any other is decoded. Damage in
        the middle of a file is therefore found only when the file is read.
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
        path = self.root / self.paths[position]
        try:
            if decode or not _looks_complete(path):
                read_image(path)
        except BadImageError as error:
            return str(error)
        return ""


def _looks_complete(path: Path) -> bool:
    """Return whether a file begins and ends like a JPEG or a PNG."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_PNG_START))
            if len(start) < len(_PNG_START):
                return False
            file.seek(-len(_PNG_END), os.SEEK_END)
            end = file.read()
    except OSError:
        return False  # reading the whole file names the reason
    return (start.startswith(_JPEG_START) and end.endswith(_JPEG_END)) or (start == _PNG_START and end == _PNG_END)


def _fail(path: Path, problem: str) -> NoReturn:
    """Raise an error that names the file."""
    raise BadImageError(f"The image file {path} {problem}. Restore it from the dataset's archive.")
