"""The layout of SYSU-MM02."""

from __future__ import annotations

import numpy as np

from vireid_lightning.data.datasets.sysu_mm02 import CAMERA_MODALITY
from vireid_lightning.data.synthetic.layouts.plan import (
    POPULATION,
    LayoutPlan,
    PlannedImage,
    join_lines,
    require_counts,
)
from vireid_lightning.kinds import check_number


def plan_sysu_mm02(train: int = 20, test: int = 10, images_per_camera: int = 10, seed: int = 0) -> LayoutPlan:
    """Plan a folder in the layout of SYSU-MM02: camera 1 visible, 2 and 3 infrared, training identities meaningless.

    Args:
        train: People in the training images.
        test: Test identities, numbered from 1.
        images_per_camera: Images of each person in each camera; in the test split the two infrared cameras share
            that many, so that both modalities have equally many, as in the dataset.
        seed: Seed of the order of the training images and of their meaningless identity column.
    """
    require_counts("sysu_mm02", train=train, test=test, images_per_camera=images_per_camera)
    check_number("seed", seed, 0, whole=True)
    generator = np.random.default_rng(seed)
    people = [person for person in range(1, train + 1) for _ in range(images_per_camera)]
    images, train_lines = [], []
    lines: dict[str, list[str]] = {"test_rgb.txt": [], "test_ir.txt": []}
    for camera, modality in CAMERA_MODALITY.items():
        # Detections come in the order of the video, so that neither name nor order of a file tells who it shows.
        counts: dict[int, int] = {}
        for position, index in enumerate(generator.permutation(len(people)).tolist(), start=1):
            person = people[index]
            counts[person] = counts.get(person, 0) + 1
            path = f"train/cam{camera}/{position:06d}.jpg"
            images.append(
                PlannedImage(path, POPULATION["sysu_mm02"] + test + person, -1, modality, camera, counts[person])
            )
            train_lines.append(f"{path} {generator.integers(train)} {camera}")
    for identity in range(1, test + 1):
        for camera, number in _number_test_images(images_per_camera):
            modality = CAMERA_MODALITY[camera]
            path = f"test/{('rgb', 'ir')[modality]}/{identity:04d}/c{camera}_{number:04d}.jpg"
            person = POPULATION["sysu_mm02"] + identity
            images.append(PlannedImage(path, person, identity, modality, camera, number))
            lines[("test_rgb.txt", "test_ir.txt")[modality]].append(f"{path} {identity} {camera}")
    index_files = {name: join_lines(rows) for name, rows in {"train.txt": train_lines, **lines}.items()}
    return LayoutPlan("sysu_mm02", images, index_files)


def _number_test_images(images: int) -> list[tuple[int, int]]:
    """Return (camera, number) of an identity's test images: camera 1, and as many shared by cameras 2 and 3."""
    infrared = [(2 + index % 2, 1 + index // 2) for index in range(images)]
    return [(1, number) for number in range(1, images + 1)] + infrared
