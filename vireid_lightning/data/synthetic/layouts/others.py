"""The layouts of the visible-only sources, Market-1501 and MSMT17, and of a manifest."""

from __future__ import annotations

from vireid_lightning.data.datasets.manifest import COLUMNS
from vireid_lightning.data.synthetic.layouts.plan import POPULATION, LayoutPlan, PlannedImage, require_counts
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE

_MARKET_CAMERAS = 6
_MSMT_CAMERAS = 15
_MANIFEST_CAMERAS = {1: VISIBLE, 2: VISIBLE, 3: INFRARED, 4: INFRARED}


def plan_market1501(train: int = 20, test: int = 10, images_per_camera: int = 2, distractors: int = 4) -> LayoutPlan:
    """Plan a folder in the layout of Market-1501: six cameras, a query of each camera, distractors and junk.

    Args:
        train: Training identities, with the numbers 2, 4, 6, ...
        test: Test identities, with the numbers 1, 3, 5, ...
        images_per_camera: Images of each identity in each camera; test identities have one more, the query.
        distractors: Images of people whom nobody searches (0000), and as many bad detections (-1).
    """
    require_counts("market1501", train=train, test=test, images_per_camera=images_per_camera)
    images = []

    def add(folder: str, label: str, person: int, identity: int, camera: int, number: int) -> None:
        path = f"{folder}/{label}_c{camera}s1_{number:06d}_{0 if folder == 'query' else 1:02d}.jpg"
        images.append(PlannedImage(path, POPULATION["market1501"] + person, identity, VISIBLE, camera, number))

    for identity in [2 * index for index in range(1, train + 1)] + [2 * index + 1 for index in range(test)]:
        for camera in range(1, _MARKET_CAMERAS + 1):
            folder = "bounding_box_test" if identity % 2 else "bounding_box_train"
            for number in range(1, images_per_camera + 1):
                add(folder, f"{identity:04d}", identity, identity, camera, number)
            if identity % 2:
                add("query", f"{identity:04d}", identity, identity, camera, images_per_camera + 1)
    strangers = 2 * max(train, test) + 1
    for index in range(2 * distractors):
        camera, number = index % _MARKET_CAMERAS + 1, index // _MARKET_CAMERAS + 1
        label, identity = ("0000", 0) if index < distractors else ("-1", -1)
        add("bounding_box_test", label, strangers + index, identity, camera, number)
    return LayoutPlan("market1501", images)


def plan_msmt17(train: int = 20, test: int = 10, images_per_identity: int = 8) -> LayoutPlan:
    """Plan a folder in the layout of MSMT17, version 1: 15 cameras, lists whose test identities count from 0 again.

    Args:
        train: Training identities; an eighth of each one's images is in ``list_val.txt``.
        test: Test identities; an eighth of each one's images is in ``list_query.txt``.
        images_per_identity: Images of each identity, over as many cameras; at least 2.
    """
    require_counts("msmt17", train=train, test=test, images_per_identity=images_per_identity - 1)
    images = []
    lists: dict[str, list[str]] = {f"list_{part}.txt": [] for part in ("train", "val", "query", "gallery")}
    for folder, identities, first, held_out, rest in (
        ("train", train, 0, "list_val.txt", "list_train.txt"),
        ("test", test, train, "list_query.txt", "list_gallery.txt"),
    ):
        for identity in range(identities):
            for index in range(images_per_identity):
                camera, number = index % _MSMT_CAMERAS + 1, index // _MSMT_CAMERAS + 1
                path = f"{identity:04d}/{identity:04d}_{index:03d}_{camera:02d}_0303morning_{number:04d}_0.jpg"
                lists[held_out if index % 8 == 0 else rest].append(f"{path} {identity}\n")
                person = POPULATION["msmt17"] + first + identity
                images.append(PlannedImage(f"{folder}/{path}", person, identity, VISIBLE, camera, number))
    return LayoutPlan("msmt17", images, {name: "".join(lines).encode() for name, lines in lists.items()})


def plan_manifest(train: int = 20, val: int = 5, test: int = 10, images_per_camera: int = 4) -> LayoutPlan:
    """Plan a folder with ``manifest.csv``: four cameras, of which 1 and 2 are visible, 3 and 4 infrared.

    Args:
        train: Training identities, numbered from 1.
        val: Validation identities, numbered after them; may be 0.
        test: Test identities, numbered last; the first half of each camera's images (rounded up) is ``gallery``, the
            other ``query``.
        images_per_camera: Images of each identity in each camera; at least 2.
    """
    require_counts("manifest", train=train, val=val + 1, test=test, images_per_camera=images_per_camera - 1)
    images, rows = [], [",".join(COLUMNS)]
    for identity in range(1, train + val + test + 1):
        for camera, modality in _MANIFEST_CAMERAS.items():
            for number in range(1, images_per_camera + 1):
                split = "train" if identity <= train else "val"
                if identity > train + val:
                    split = "gallery" if number <= (images_per_camera + 1) // 2 else "query"
                path = f"images/camera{camera}/{identity:04d}_{number:03d}.jpg"
                person = POPULATION["manifest"] + identity
                images.append(PlannedImage(path, person, identity, modality, camera, number))
                rows.append(f"{path},{identity},{MODALITIES[modality]},{camera},{split}")
    return LayoutPlan("manifest", images, {"manifest.csv": "".join(row + "\n" for row in rows).encode()})
