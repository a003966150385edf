"""The layout of LLCM."""

from __future__ import annotations

from vireid_lightning.data.datasets.llcm import TEST_CAMERAS, TEST_FOLDERS, TRAIN_LISTS
from vireid_lightning.data.synthetic.layouts.plan import (
    POPULATION,
    LayoutPlan,
    PlannedImage,
    join_lines,
    require_counts,
)
from vireid_lightning.types import INFRARED, VISIBLE


def plan_llcm(train: int = 20, test: int = 10, images_per_camera: int = 4) -> LayoutPlan:
    """Plan a folder in the layout of LLCM, with every identity in all cameras of each modality.

    Args:
        train: Training identities, numbered from 1.
        test: Test identities, numbered after them.
        images_per_camera: Images of each identity in each camera of each modality.
    """
    require_counts("llcm", train=train, test=test, images_per_camera=images_per_camera)
    images = []
    lists: dict[int, list[str]] = {VISIBLE: [], INFRARED: []}
    for identity in range(1, train + test + 1):
        for modality, word in ((VISIBLE, "vis"), (INFRARED, "nir")):
            for camera in TEST_CAMERAS[modality]:
                for number in range(1, images_per_camera + 1):
                    # The names carry a session and a frame, which here only count on.
                    name = f"{identity:04d}_c{camera:02d}_s{camera:06d}_f{number:05d}_{word}.jpg"
                    if identity <= train:
                        path = f"{word}/{identity:04d}/{name}"
                        lists[modality].append(f"{path} {identity - 1}")
                    else:
                        path = f"{TEST_FOLDERS[modality]}/cam{camera}/{identity:04d}/{name}"
                    images.append(PlannedImage(path, POPULATION["llcm"] + identity, identity, modality, camera, number))
    index_files = {TRAIN_LISTS[modality]: join_lines(lines) for modality, lines in lists.items()}
    index_files["idx/test_id.txt"] = join_lines([",".join(str(train + 1 + index) for index in range(test))])
    return LayoutPlan("llcm", images, index_files)
