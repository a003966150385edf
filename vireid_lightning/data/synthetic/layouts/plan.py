"""What a layout plan is: the files that a dataset's folder would hold, without their pixels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from vireid_lightning.kinds import check_number

#: First number of each layout's people. Two layouts drawn with one seed show different people, so that nothing
#: learnt from one of them is about the people of the other.
POPULATION = {
    "sysu_mm01": 0,
    "regdb": 100_000,
    "llcm": 200_000,
    "sysu_mm02": 300_000,
    "market1501": 400_000,
    "msmt17": 500_000,
    "manifest": 600_000,
}

#: Identities, or images of each, that are drawn at most; more would fill any disk.
LARGEST_COUNT = 10**6

#: Processes that draw at most.
MOST_WORKERS = 1024


@dataclass(frozen=True)
class PlannedImage:
    """One image file to draw.

    Attributes:
        path: Relative to the root, with forward slashes; the suffix gives the format.
        person: Number of the person drawn; images show the same person where it is the same.
        identity: The identity number in the layout (-1 or 0 for junk images).
        modality: 0 visible, 1 infrared.
        camera: The layout's camera number, from 1; -1 unknown.
        number: Running number of this image among the person's images of that camera, from 1.
    """

    path: str
    person: int
    identity: int
    modality: int
    camera: int
    number: int


@dataclass(frozen=True)
class LayoutPlan:
    """A dataset's folder before it is drawn.

    Attributes:
        layout: Name of the layout, such as ``sysu_mm01``.
        images: Every image file, sorted by path.
        index_files: Path relative to the root -> content.
    """

    layout: str
    images: list[PlannedImage]
    index_files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images.sort(key=lambda image: image.path)


def require_counts(layout: str, least: Mapping[str, int] | None = None, /, **counts: int) -> None:
    """Raise a :class:`VIReIDError` for a count that is no whole number from 1, or from its ``least``, naming it."""
    for name, count in counts.items():
        smallest = (least or {}).get(name, 1)
        check_number(f"The {layout} layout's {name}", count, smallest, LARGEST_COUNT, whole=True)


def encode_matrix(variable: str, value: NDArray[Any]) -> bytes:
    """Return the content of a MATLAB file with one variable; the same value gives the same bytes."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {variable: value}, oned_as="row")
    content = bytearray(buffer.getvalue())
    # The first 116 bytes are free text into which SciPy writes the time; MATLAB wants it to begin with this word.
    content[:116] = b"MATLAB 5.0 MAT-file".ljust(116)
    return bytes(content)


def join_lines(lines: Iterable[str], end: str = "\n") -> bytes:
    """Return the content of a text file of these lines."""
    return "".join(line + end for line in lines).encode()
