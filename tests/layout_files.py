"""Writing layout plans as tiny noise images, for tests that read datasets in their true structure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vireid_lightning.data.synthetic.layouts import LayoutPlan


def write_plan(plan: LayoutPlan, root: Path) -> Path:
    """Write a plan's index files, and 16 x 8 noise for each of its images; return ``root``.

    The pixels are the same in all files, the bytes are not: the image's number stands where no decoder looks.
    """
    noise = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    encoded = {suffix: cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".jpg", ".bmp")}
    for path, content in plan.index_files.items():
        write(root / path, content)
    for number, image in enumerate(plan.images):
        content = encoded[suffix := Path(image.path).suffix]
        tag = number.to_bytes(4, "little")
        # A comment after a JPEG's first marker; the reserved bytes of a BMP's header.
        write(
            root / image.path,
            (content[:2] + b"\xff\xfe\0\6" + tag + content[2:])
            if suffix == ".jpg"
            else (content[:6] + tag + content[10:]),
        )
    return root


def write(path: Path, content: bytes | str) -> Path:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of ``old`` in a text file, which must have it."""
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
