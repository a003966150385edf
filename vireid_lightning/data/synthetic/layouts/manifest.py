"""The layout of a manifest: images wherever they are, and a CSV file."""

from __future__ import annotations

from vireid_lightning.data.datasets.manifest import COLUMNS
from vireid_lightning.data.synthetic.layouts.plan import (
    POPULATION,
    LayoutPlan,
    PlannedImage,
    join_lines,
    require_counts,
)
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE

_CAMERAS = {1: VISIBLE, 2: VISIBLE, 3: INFRARED, 4: INFRARED}


def plan_manifest(train: int = 20, val: int = 5, test: int = 10, images_per_camera: int = 4) -> LayoutPlan:
    """Plan a folder with ``manifest.csv``: four cameras, of which 1 and 2 are visible, 3 and 4 infrared.

    Args:
        train: Training identities, numbered from 1.
        val: Validation identities, numbered after them; may be 0.
        test: Test identities, numbered last; the first half of each camera's images (rounded up) is ``gallery``, the
            other ``query``.
        images_per_camera: Images of each identity in each camera; at least 2.
    """
    least = {"val": 0, "images_per_camera": 2}
    require_counts("manifest", least, train=train, val=val, test=test, images_per_camera=images_per_camera)
    images, rows = [], [",".join(COLUMNS)]
    for identity in range(1, train + val + test + 1):
        for camera, modality in _CAMERAS.items():
            for number in range(1, images_per_camera + 1):
                split = "train" if identity <= train else "val"
                if identity > train + val:
                    split = "gallery" if number <= (images_per_camera + 1) // 2 else "query"
                path = f"images/camera{camera}/{identity:04d}_{number:03d}.jpg"
                person = POPULATION["manifest"] + identity
                images.append(PlannedImage(path, person, identity, modality, camera, number))
                rows.append(f"{path},{identity},{MODALITIES[modality]},{camera},{split}")
    return LayoutPlan("manifest", images, {"manifest.csv": join_lines(rows)})
