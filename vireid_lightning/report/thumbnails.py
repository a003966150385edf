"""Small pictures of a dataset's images."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.images.reading import (
    BadImageError,
    DeepImageError,
    check_header,
    decode,
    read_content,
    read_image,
    scale_intensity,
)

#: Height of a picture in pixels; its width follows from the image, up to the height.
HEIGHT = 112

_QUALITY = 72


@dataclass
class Thumbnails:
    """Pictures as base64 texts of JPEG files, by the images' positions.

    Attributes:
        jpeg: The pictures.
        unreadable: Paths of images that are missing on disk or cannot be read.
        beyond: Number of images for which there was no room.
    """

    jpeg: dict[int, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    beyond: int = 0


def make_thumbnails(root: Path, images: Iterable[tuple[int, str]], room: int, *, outside: bool = False) -> Thumbnails:
    """Return pictures of images until they fill the room.

    Args:
        root: Folder that the paths are relative to.
        images: Position and path of each image.
        room: Bytes that the pictures may take in the page.
        outside: Whether paths may lead out of the folder.
    """
    made = Thumbnails()
    for position, path in images:
        if made.beyond:  # the first that finds no room ends it, so that lists have all of their pictures or none
            made.beyond += 1
            continue
        picture = read_picture(root, path, outside=outside)
        if picture is None:
            made.unreadable.append(path)
            continue
        text = base64.b64encode(encode_jpeg(shrink(picture, HEIGHT))).decode()
        size = len(text) + 16  # and its place in a JSON object
        if size > room:
            made.beyond += 1
            continue
        room -= size
        made.jpeg[position] = text
    return made


def read_picture(root: Path, path: str, *, outside: bool = False) -> NDArray[np.uint8] | None:
    """Return an image (H, W, 3) uint8 RGB to look at, or None where it is missing or cannot be read.

    An image of more than 8 bits is stretched between its own 0.5th and 99.5th percentile.
    """
    parts = PurePosixPath(path)
    if not outside and (parts.is_absolute() or ".." in parts.parts):
        return None
    file = root / path
    try:
        return read_image(file)
    except DeepImageError:
        content = read_content(file)
        values = decode(file, content, check_header(file, content))
        low, high = np.nanpercentile(values.astype(np.float64), (0.5, 99.5))
        return scale_intensity(values, (float(low), float(high) if high > low else float(low) + 1))
    except BadImageError:
        return None


def shrink(picture: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Return a picture of a height, no wider than that."""
    width = min(height, max(1, round(picture.shape[1] * height / picture.shape[0])))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W, 3) RGB as the bytes of a JPEG file."""
    _, content = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return content.tobytes()
