"""The layout of MSMT17."""

from __future__ import annotations

from vireid_lightning.data.synthetic.layouts.plan import POPULATION, LayoutPlan, PlannedImage, require_counts
from vireid_lightning.types import VISIBLE

_CAMERAS = 15


def plan_msmt17(train: int = 20, test: int = 10, images_per_identity: int = 8) -> LayoutPlan:
    """Plan a folder in the layout of MSMT17, version 1: 15 cameras, lists whose test identities count from 0 again.

    Args:
        train: Training identities; an eighth of each one's images is in ``list_val.txt``.
        test: Test identities; an eighth of each one's images is in ``list_query.txt``.
        images_per_identity: Images of each identity, over as many cameras; at least 2.
    """
    require_counts(
        "msmt17", {"images_per_identity": 2}, train=train, test=test, images_per_identity=images_per_identity
    )
    images = []
    lists: dict[str, list[str]] = {f"list_{part}.txt": [] for part in ("train", "val", "query", "gallery")}
    for folder, identities, first, held_out, rest in (
        ("train", train, 0, "list_val.txt", "list_train.txt"),
        ("test", test, train, "list_query.txt", "list_gallery.txt"),
    ):
        for identity in range(identities):
            for index in range(images_per_identity):
                camera, number = index % _CAMERAS + 1, index // _CAMERAS + 1
                path = f"{identity:04d}/{identity:04d}_{index:03d}_{camera:02d}_0303morning_{number:04d}_0.jpg"
                lists[held_out if index % 8 == 0 else rest].append(f"{path} {identity}\n")
                person = POPULATION["msmt17"] + first + identity
                images.append(PlannedImage(f"{folder}/{path}", person, identity, VISIBLE, camera, number))
    return LayoutPlan("msmt17", images, {name: "".join(lines).encode() for name, lines in lists.items()})
