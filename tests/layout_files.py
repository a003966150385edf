"""Writing layout plans as tiny noise images, for tests that read datasets in their true structure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vireid_lightning.data.synthetic.layouts import LayoutPlan


def write_plan(plan: LayoutPlan, root: Path) -> Path:
    """Write a plan's index files, and 16 x 8 noise for each of its images; return ``root``."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    encoded = {suffix: cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".jpg", ".bmp")}
    for path, content in plan.index_files.items():
        write(root / path, content)
    for image in plan.images:
        write(root / image.path, encoded[Path(image.path).suffix])
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
