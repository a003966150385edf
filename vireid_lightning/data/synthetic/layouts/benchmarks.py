"""The layouts of the other cross-modality benchmarks: RegDB, LLCM and SYSU-MM02."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vireid_lightning.data.datasets.index_files import read_rows, to_number
from vireid_lightning.data.datasets.llcm import TEST_CAMERAS, TEST_FOLDERS, TRAIN_LISTS
from vireid_lightning.data.datasets.sysu_mm02 import CAMERA_MODALITY as SYSU_MM02_CAMERAS
from vireid_lightning.data.synthetic.layouts.plan import POPULATION, LayoutPlan, PlannedImage, require_counts
from vireid_lightning.errors import VIReIDError
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
        _regdb_image(f"{folder}/{identity}/person_{letter}_{number:05d}_{identity}.bmp", identity, modality, number)
        for modality, folder, letter in ((VISIBLE, "Visible", "v"), (INFRARED, "Thermal", "t"))
        for identity in range(1, identities + 1)
        for number in range(1, images_per_modality + 1)
    ]
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
                index_files[f"idx/{part}_{word}_{trial}.txt"] = _text(lines, "\r\n")
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
        images.append(_regdb_image(path, identity, modality, numbers[identity, modality]))
    return LayoutPlan("regdb", images, {f"idx/{file.name}": file.read_bytes() for file in files})


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
    index_files = {TRAIN_LISTS[modality]: _text(lines) for modality, lines in lists.items()}
    index_files["idx/test_id.txt"] = _text([",".join(str(train + 1 + index) for index in range(test))])
    return LayoutPlan("llcm", images, index_files)


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
    generator = np.random.default_rng(seed)
    people = [person for person in range(1, train + 1) for _ in range(images_per_camera)]
    images, train_lines = [], []
    lines: dict[str, list[str]] = {"test_rgb.txt": [], "test_ir.txt": []}
    for camera, modality in SYSU_MM02_CAMERAS.items():
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
        for camera, number in _test_images(images_per_camera):
            modality = SYSU_MM02_CAMERAS[camera]
            path = f"test/{('rgb', 'ir')[modality]}/{identity:04d}/c{camera}_{number:04d}.jpg"
            person = POPULATION["sysu_mm02"] + identity
            images.append(PlannedImage(path, person, identity, modality, camera, number))
            lines[("test_rgb.txt", "test_ir.txt")[modality]].append(f"{path} {identity} {camera}")
    index_files = {name: _text(rows) for name, rows in {"train.txt": train_lines, **lines}.items()}
    return LayoutPlan("sysu_mm02", images, index_files)


def _test_images(images: int) -> list[tuple[int, int]]:
    """Return (camera, number) of an identity's test images: camera 1, and as many shared by cameras 2 and 3."""
    infrared = [(2 + index % 2, 1 + index // 2) for index in range(images)]
    return [(1, number) for number in range(1, images + 1)] + infrared


def _regdb_image(path: str, identity: int, modality: int, number: int) -> PlannedImage:
    return PlannedImage(path, POPULATION["regdb"] + identity, identity, modality, 1 + modality, number)


def _text(lines: Iterable[str], end: str = "\n") -> bytes:
    """Join lines into the content of a text file."""
    return "".join(line + end for line in lines).encode()
