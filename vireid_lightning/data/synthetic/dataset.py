"""A dataset of synthetic pedestrians that draws itself on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from vireid_lightning.data.datasets.base import PublishedSplit, Split
from vireid_lightning.data.datasets.sysu_mm01 import SYSUMM01
from vireid_lightning.data.synthetic.layouts import plan_sysu_mm01
from vireid_lightning.data.synthetic.layouts.plan import LARGEST_COUNT, MOST_WORKERS
from vireid_lightning.kinds import check_kinds, check_number


class Synthetic(SYSUMM01):
    """Synthetic pedestrians in the layout of SYSU-MM01, drawn on first use.

    The images lie in a folder below ``root`` that is named by the settings, and are read as SYSU-MM01 is: six cameras,
    two of them infrared, and SYSU-MM01's protocols. Several processes may construct it at once: one draws.

    Args:
        root: Folder of all drawn datasets; created where it is missing.
        identities: Number of identities of the train split.
        val_identities: Number of identities of the val split.
        test_identities: Number of identities of the test split.
        images: Number of images of every identity in each of the six cameras.
        seed: Seed of the people, cameras and images.
        difficulty: How strong the cameras' disturbances are and how much of a person's look the infrared loses, 0 to 1.
        image_size: Height and width of the drawn images in pixels.
        likeness: How much a person's infrared brightness follows the visible one: from 0, not at all, to 1, where the
            infrared shows what a gray image does and only colour misleads between the modalities.
        train: The identities that training uses: those of ``train``, or of ``train`` and ``val`` together.
        validation: The identities that validation scores: those of ``val``, or the test identities.
        workers: Number of processes that draw; more than 1 needs a script with ``if __name__ == "__main__":``.

    Raises:
        VIReIDError: An argument is not of its kind, or outside its range.

    Example:
        >>> dataset = Synthetic("synthetic", identities=100, images=4)  # doctest: +SKIP
        >>> len(dataset.identities("train"))  # doctest: +SKIP
        100
    """

    name: ClassVar[str] = "Synthetic"
    published: ClassVar[Mapping[Split, PublishedSplit]] = {}
    closed_to_tools: ClassVar[str | None] = (
        "Synthetic draws the images that its folder lacks; name the dataset whose layout they have, SYSUMM01, with "
        "that folder as the root."
    )

    def __init__(
        self,
        root: str | Path = "synthetic",
        *,
        identities: int = 160,
        val_identities: int = 20,
        test_identities: int = 24,
        images: int = 5,
        seed: int = 0,
        difficulty: float = 0.5,
        image_size: tuple[int, int] = (128, 64),
        likeness: float = 0.0,
        train: Literal["train", "train+val"] = "train",
        validation: Literal["val", "test"] = "val",
        workers: int = 1,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "root", "__class__")}
        check_kinds(given, Synthetic.__init__, f"{self.name}: ")
        for name in ("identities", "val_identities", "test_identities", "images"):
            check_number(f"{self.name}: {name}", given[name], 1, LARGEST_COUNT, whole=True)
        check_number(f"{self.name}: workers", workers, 1, MOST_WORKERS, whole=True)
        # Imported here, because OpenCV draws, and what only names the datasets should not load it.
        from vireid_lightning.data.synthetic.drawing import MARKER, describe_drawing, write_plan
        from vireid_lightning.data.synthetic.renderer import PedestrianRenderer

        renderer = PedestrianRenderer(seed, difficulty, image_size, likeness)
        counts = {"train": identities, "val": val_identities, "test": test_identities, "images_per_camera": images}
        digest = hashlib.sha256(
            json.dumps({**describe_drawing(renderer), **counts}, sort_keys=True).encode()
        ).hexdigest()
        folder = Path(root).expanduser() / f"sysu_mm01-{digest[:12]}"
        if not (folder / MARKER).exists():
            write_plan(
                plan_sysu_mm01(**counts, seed=seed),
                folder,
                seed=seed,
                difficulty=difficulty,
                image_size=image_size,
                likeness=likeness,
                workers=workers,
            )
        super().__init__(folder, train=train, validation=validation)
