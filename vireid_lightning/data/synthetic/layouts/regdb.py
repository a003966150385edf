"""The layout of RegDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vireid_lightning.data.datasets.index_files import read_rows, to_number
from vireid_lightning.data.synthetic.layouts.plan import (
    POPULATION,
    LayoutPlan,
    PlannedImage,
    join_lines,
    require_counts,
)
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.types import INFRARED, VISIBLE


def plan_regdb(identities: int = 20, images_per_modality: int = 10, trials: int = 10, seed: int = 0) -> LayoutPlan:
    """Plan a folder in the layout of RegDB, each trial a random half of the identities for training.

    Args:
        identities: An even number of identities.
        images_per_modality: Images of each identity in each modality.
        trials: How many splits to draw, from trial 1; the benchmark has ten.
        seed: Seed of the splits.
    """
    require_counts("regdb", identities=identities, images_per_modality=images_per_modality, trials=trials)
    if identities % 2:
        raise VIReIDError(f"The regdb layout splits its identities in half; identities={identities} is odd.")
    images = [
        _plan_image(f"{folder}/{identity}/person_{letter}_{number:05d}_{identity}.bmp", identity, modality, number)
        for modality, folder, letter in ((VISIBLE, "Visible", "v"), (INFRARED, "Thermal", "t"))
        for identity in range(1, identities + 1)
        for number in range(1, images_per_modality + 1)
    ]
    check_number("seed", seed, 0, whole=True)
    generator = np.random.default_rng(seed)
    index_files = {}
    for trial in range(1, trials + 1):
        order = (generator.permutation(identities) + 1).tolist()
        for part, chosen in (("train", order[: identities // 2]), ("test", order[identities // 2 :])):
            labels = {identity: label for label, identity in enumerate(chosen)}
            for modality, word in ((VISIBLE, "visible"), (INFRARED, "thermal")):
                listed = [image for image in images if image.modality == modality and image.identity in labels]
                listed.sort(key=lambda image: (labels[image.identity], image.path))
                lines = (f"{image.path} {labels[image.identity]}" for image in listed)
                index_files[f"idx/{part}_{word}_{trial}.txt"] = join_lines(lines, "\r\n")
    return LayoutPlan("regdb", images, index_files)


def plan_regdb_like(idx_folder: str | Path) -> LayoutPlan:
    """Plan exactly the images that the files of an ``idx`` folder list; its index files are copied.

    Args:
        idx_folder: A folder with ``{train,test}_{visible,thermal}_{trial}.txt`` of one or more trials.
    """
    folder = Path(idx_folder).expanduser()
    files = sorted(folder.glob("*_visible_*.txt")) + sorted(folder.glob("*_thermal_*.txt"))
    if not files:
        raise VIReIDError(f"{folder} holds no index file such as train_visible_1.txt; give RegDB's idx folder.")
    paths = {(path, "_visible_" in file.name) for file in files for path, _ in read_rows("RegDB", file, columns=2)}
    numbers: dict[tuple[int, int], int] = {}
    images = []
    for path, visible in sorted(paths):
        identity = to_number("RegDB", path.split("/")[-2], "an identity's folder", str(folder))
        modality = VISIBLE if visible else INFRARED
        numbers[identity, modality] = numbers.get((identity, modality), 0) + 1
        images.append(_plan_image(path, identity, modality, numbers[identity, modality]))
    return LayoutPlan("regdb", images, {f"idx/{file.name}": file.read_bytes() for file in files})


def _plan_image(path: str, identity: int, modality: int, number: int) -> PlannedImage:
    return PlannedImage(path, POPULATION["regdb"] + identity, identity, modality, 1 + modality, number)
