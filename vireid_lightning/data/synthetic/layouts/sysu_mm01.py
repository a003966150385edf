"""The layout of SYSU-MM01."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.datasets.gallery_draws import GALLERY_DRAWS
from vireid_lightning.data.datasets.index_files import load_matrix, read_matrix_numbers, read_numbers
from vireid_lightning.data.datasets.sysu_mm01 import CAMERA_MODALITY
from vireid_lightning.data.synthetic.layouts.plan import (
    POPULATION,
    LayoutPlan,
    PlannedImage,
    encode_matrix,
    require_counts,
)
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number

_LAYOUT = "sysu_mm01"
_PARTS = ("train", "val", "test")


def plan_sysu_mm01(
    train: int = 20, val: int = 5, test: int = 10, images_per_camera: int = 10, seed: int = 0
) -> LayoutPlan:
    """Plan a folder in the layout of SYSU-MM01, with every identity in all six cameras.

    Args:
        train: Training identities, numbered from 1.
        val: Validation identities, numbered after them.
        test: Test identities, numbered last.
        images_per_camera: Images of each identity in each camera.
        seed: Seed of the image orders in ``rand_perm_cam.mat``.

    Returns:
        The plan; its index files are those of the ``exp`` folder, as text and as MATLAB files.
    """
    require_counts(_LAYOUT, train=train, val=val, test=test, images_per_camera=images_per_camera)
    total = train + val + test
    numbers = list(range(1, total + 1))
    parts = {"train": numbers[:train], "val": numbers[train : train + val], "test": numbers[train + val :]}
    counts = {(identity, camera): images_per_camera for identity in numbers for camera in CAMERA_MODALITY}
    index_files = {"exp/rand_perm_cam.mat": encode_matrix("rand_perm_cam", _draw_orders(counts, total, seed))}
    for name, identities in {**parts, "available": numbers}.items():
        index_files[f"exp/{name}_id.txt"] = ",".join(map(str, identities)).encode() + b"\n"
        index_files[f"exp/{name}_id.mat"] = encode_matrix("id", np.array([identities], dtype=np.uint16))
    return LayoutPlan(_LAYOUT, _list_images(counts), index_files)


def plan_sysu_mm01_like(exp_folder: str | Path) -> LayoutPlan:
    """Plan exactly the structure that an ``exp`` folder describes: its identities and images in each camera.

    Args:
        exp_folder: A folder with ``{train,val,test}_id`` files (text or MATLAB) and ``rand_perm_cam.mat``.

    Returns:
        The plan; its index files are copies of the folder's.
    """
    folder = Path(exp_folder).expanduser()
    if not folder.is_dir():
        raise VIReIDError(f"The folder {folder} does not exist; give SYSU-MM01's exp folder.")
    identities: list[int] = []
    for part in _PARTS:
        text, matrix = folder / f"{part}_id.txt", folder / f"{part}_id.mat"
        use_matrix = matrix.exists() and not text.exists()
        identities += read_matrix_numbers(_LAYOUT, matrix) if use_matrix else read_numbers(_LAYOUT, text)
    cells = load_matrix(_LAYOUT, folder / "rand_perm_cam.mat", "rand_perm_cam").ravel()
    counts = {}
    for identity in sorted(identities):
        for camera in CAMERA_MODALITY:
            rows = cells[camera - 1].ravel()
            images = rows[identity - 1].shape[1] if identity <= len(rows) else 0
            if images:
                counts[identity, camera] = images
    copied = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".mat"))
    return LayoutPlan(_LAYOUT, _list_images(counts), {f"exp/{path.name}": path.read_bytes() for path in copied})


def _list_images(counts: dict[tuple[int, int], int]) -> list[PlannedImage]:
    """List the images of (identity, camera) -> count."""
    return [
        PlannedImage(
            path=f"cam{camera}/{identity:04d}/{number:04d}.jpg",
            person=POPULATION[_LAYOUT] + identity,
            identity=identity,
            modality=CAMERA_MODALITY[camera],
            camera=camera,
            number=number,
        )
        for (identity, camera), count in counts.items()
        for number in range(1, count + 1)
    ]


def _draw_orders(counts: dict[tuple[int, int], int], identities: int, seed: int) -> NDArray[np.object_]:
    """Draw ``rand_perm_cam``: a 6 x 1 cell array of identities x 1 cell arrays of (trials, images) matrices."""
    check_number("seed", seed, 0, whole=True)
    generator = np.random.default_rng(seed)
    cameras = np.empty((len(CAMERA_MODALITY), 1), dtype=object)
    for camera in CAMERA_MODALITY:
        rows = np.empty((identities, 1), dtype=object)
        for identity in range(1, identities + 1):
            count = counts.get((identity, camera), 0)
            orders = np.tile(np.arange(1, count + 1), (GALLERY_DRAWS, 1))
            rows[identity - 1, 0] = generator.permuted(orders, axis=1).astype(np.uint8 if count < 256 else np.uint16)
        cameras[camera - 1, 0] = rows
    return cameras
