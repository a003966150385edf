"""The layout of Market-1501."""

from __future__ import annotations

from vireid_lightning.data.synthetic.layouts.plan import POPULATION, LayoutPlan, PlannedImage, require_counts
from vireid_lightning.types import VISIBLE

_CAMERAS = 6


def plan_market1501(train: int = 20, test: int = 10, images_per_camera: int = 2, distractors: int = 4) -> LayoutPlan:
    """Plan a folder in the layout of Market-1501: six cameras, a query of each camera, distractors and junk.

    Args:
        train: Training identities, with the numbers 2, 4, 6, ...
        test: Test identities, with the numbers 1, 3, 5, ...
        images_per_camera: Images of each identity in each camera; test identities have one more, the query.
        distractors: Number of distractor images (0000, people whom no query shows), and of bad detections (-1).
    """
    counts = {"train": train, "test": test, "images_per_camera": images_per_camera, "distractors": distractors}
    require_counts("market1501", {"distractors": 0}, **counts)
    images = []

    def add(folder: str, label: str, person: int, identity: int, camera: int, number: int) -> None:
        path = f"{folder}/{label}_c{camera}s1_{number:06d}_{0 if folder == 'query' else 1:02d}.jpg"
        images.append(PlannedImage(path, POPULATION["market1501"] + person, identity, VISIBLE, camera, number))

    for identity in [2 * index for index in range(1, train + 1)] + [2 * index + 1 for index in range(test)]:
        for camera in range(1, _CAMERAS + 1):
            folder = "bounding_box_test" if identity % 2 else "bounding_box_train"
            for number in range(1, images_per_camera + 1):
                add(folder, f"{identity:04d}", identity, identity, camera, number)
            if identity % 2:
                add("query", f"{identity:04d}", identity, identity, camera, images_per_camera + 1)
    strangers = 2 * max(train, test) + 1
    for index in range(2 * distractors):
        camera, number = index % _CAMERAS + 1, index // _CAMERAS + 1
        label, identity = ("0000", 0) if index < distractors else ("-1", -1)
        add("bounding_box_test", label, strangers + index, identity, camera, number)
    return LayoutPlan("market1501", images)
