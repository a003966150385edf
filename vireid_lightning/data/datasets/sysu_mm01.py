"""SYSU-MM01 (Wu et al., ICCV 2017): six cameras, four visible and two near-infrared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.datasets.base import PublishedSplit, ReIDDataset, Split
from vireid_lightning.data.datasets.folders import list_identity_folders, require_identities
from vireid_lightning.data.datasets.gallery_draws import GALLERY_DRAWS, draw_one_per_folder
from vireid_lightning.data.datasets.index_files import (
    load_matrix,
    read_matrix_numbers,
    read_numbers,
    require_disjoint,
    to_whole,
)
from vireid_lightning.data.datasets.protocol_building import (
    DIRECTIONS,
    SampleColumns,
    check_protocol,
    find_expected,
    index_by_path,
)
from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import INFRARED, VISIBLE, Sample

#: Modality of each camera.
CAMERA_MODALITY = {1: VISIBLE, 2: VISIBLE, 3: INFRARED, 4: VISIBLE, 5: VISIBLE, 6: INFRARED}

#: Gallery cameras of each search mode, in the order in which they are drawn from.
GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}

#: Gallery images of each identity and camera.
SHOTS = {"single": 1, "multi": 10}


def _build_published(identities: int, cameras: dict[int, int]) -> PublishedSplit:
    """Return a published split from its number of images in each camera."""
    return PublishedSplit(identities, {(CAMERA_MODALITY[c], c): images for c, images in cameras.items()})


class SYSUMM01(ReIDDataset):
    """SYSU-MM01 in its own layout, ``root/cam{1..6}/{identity:04d}/{image:04d}.jpg`` and ``root/exp/``.

    Papers train on the train and val identities together (395) and report on the 96 test identities; they also choose
    their checkpoint on the test identities, which flatters the score. For an honest choice of checkpoint give
    ``train="train", validation="val"``.

    Args:
        root: The dataset's folder.
        train: The identities that training uses: 296 (``train``) or 395 (``train+val``).
        validation: The identities that validation scores: the 99 of ``val``, or the test identities.

    Raises:
        VIReIDError: The root or an index file is missing or broken, or the validation identities are trained on.

    Example:
        >>> dataset = SYSUMM01("/data/SYSU-MM01", train="train", validation="val")  # doctest: +SKIP
        >>> len(dataset.identities("train"))  # doctest: +SKIP
        296
    """

    name: ClassVar[str] = "SYSU-MM01"
    distance: ClassVar[Literal["cosine", "euclidean"]] = "cosine"
    default_protocol: str = "all/single/official"
    # Counted from the index files, which have the numbers of the papers.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": _build_published(296, {1: 4721, 2: 5753, 3: 5929, 4: 4821, 5: 4989, 6: 4000}),
        "val": _build_published(99, {3: 1980, 4: 990, 5: 984}),
        "test": _build_published(96, {1: 1374, 2: 1565, 3: 1883, 4: 1918, 5: 1918, 6: 1920}),
    }
    check_options: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "val"}
    listed_in: ClassVar[str] = "exp/rand_perm_cam.mat"

    def __init__(
        self,
        root: str | Path,
        *,
        train: Literal["train", "train+val"] = "train+val",
        validation: Literal["val", "test"] = "test",
    ) -> None:
        super().__init__(root)
        if train not in ("train", "train+val"):
            raise VIReIDError(f"{self.name}: train is {train!r}; give 'train' or 'train+val'.")
        if validation not in ("val", "test"):
            raise VIReIDError(f"{self.name}: validation is {validation!r}; give 'val' or 'test'.")
        if train == "train+val" and validation == "val":
            raise VIReIDError(
                f"{self.name}: train='train+val' with validation='val' would validate on identities that are trained "
                "on. Set train='train' to keep the val identities apart, or validation='test' as the papers do."
            )
        self.train = train
        self.validation = validation
        parts: dict[Split, tuple[str, ...]] = {
            "train": tuple(train.split("+")),
            "val": (validation,),
            "test": ("test",),
        }
        self._identities: dict[Split, list[int]] = {
            split: sorted({identity for part in names for identity in self._read_identities(part)})
            for split, names in parts.items()
        }
        for split in ("val", "test"):
            require_disjoint(self.name, self._identities["train"], self._identities[split], split, self.root / "exp")

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split, from the ``exp`` files alone."""
        return list(self._identities[split])

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of the split's identities, by camera, identity and file name.

        Raises:
            VIReIDError: An identity of the index files has no image in any camera.
        """
        samples = []
        for camera, modality in CAMERA_MODALITY.items():
            files = list_identity_folders(self.root, f"cam{camera}", self._identities[split])
            samples += [Sample(path, identity, modality, camera) for path, identity in files]
        require_identities(
            self.name, self.root, self._identities[split], samples, f"{split} identities of exp", "cam1 to cam6"
        )
        return samples

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return the whole table: all and indoor search, single and multi-shot, official and seeded galleries.

        Queries are all images of the infrared cameras 3 and 6. ``official`` galleries follow ``rand_perm_cam.mat``:
        trial t takes the first (or the first ten) image numbers of row t. ``seeded`` galleries, single-shot only,
        are drawn as most published code draws them. Both have ten trials; queries of camera 3 skip camera 2; the
        CMC curve counts identities. Indoor search is left out where the split has no image of cameras 1 and 2, as
        the dataset's val identities, which were seen outdoors only.

        Args:
            samples: All images of the split, from :meth:`samples` or from saved embeddings.
            split: Whose identities are searched.

        Raises:
            VIReIDError: The samples are not the images that ``rand_perm_cam.mat`` lists, or no query has a true match
                in its gallery.
        """
        columns = SampleColumns.of(samples)
        positions = index_by_path(self.name, samples)
        orders = self._read_orders(split)
        # A seeded draw depends on every visible image, and each infrared image is a query: all of them are needed, and
        # no other.
        find_expected(self.name, samples, positions, _list_ordered(orders))
        query = np.flatnonzero(columns.modality == INFRARED)
        visible = np.flatnonzero(columns.modality == VISIBLE).tolist()

        def build(mode: str, shot: str, sampling: str) -> Protocol:
            if sampling == "official":
                galleries = [
                    _take_official_gallery(positions, orders, mode, SHOTS[shot], draw) for draw in range(GALLERY_DRAWS)
                ]
            else:
                galleries = [
                    draw_one_per_folder(samples, visible, GALLERY_CAMERAS[mode], draw) for draw in range(GALLERY_DRAWS)
                ]
            built = Protocol(
                name=f"{mode}/{shot}/{sampling}",
                trials=tuple(Trial(query=query, gallery=gallery) for gallery in galleries),
                removal="sysu",
                cmc="identity",
                labels={"direction": DIRECTIONS[INFRARED], "mode": mode, "shot": shot, "sampling": sampling},
            )
            return check_protocol(self.name, built, columns)

        filmed = {camera for _, camera in orders}
        modes = [mode for mode, cameras in GALLERY_CAMERAS.items() if mode == "all" or filmed & set(cameras)]
        official = [build(mode, shot, "official") for mode in modes for shot in SHOTS]
        return official + [build(mode, "single", "seeded") for mode in modes]

    def listed(self, split: Split) -> list[Sample]:
        """Return every image of a split that ``rand_perm_cam.mat`` lists, whether it is on disk or not."""
        return _list_ordered(self._read_orders(split))

    def _read_identities(self, part: str) -> list[int]:
        """Read ``exp/{part}_id.txt``, or the ``.mat`` file where there is no text file."""
        text, matrix = (self.root / "exp" / f"{part}_id{suffix}" for suffix in (".txt", ".mat"))
        if not text.exists() and matrix.exists():
            return read_matrix_numbers(self.name, matrix)
        return read_numbers(self.name, text)

    def _read_orders(self, split: Split) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Read ``rand_perm_cam.mat``: (identity, camera) -> (trials, images) of 1-based image numbers.

        In the order of identities, then of cameras; an identity without images in a camera has no entry.
        """
        path = self.root / "exp" / "rand_perm_cam.mat"
        cells = load_matrix(self.name, path, "rand_perm_cam").ravel()
        orders = {}
        if len(cells) != len(CAMERA_MODALITY) or cells.dtype != object:
            raise VIReIDError(
                f"{self.name}: rand_perm_cam in {path} has {len(cells)} cells where there should be one for each of "
                f"the {len(CAMERA_MODALITY)} cameras. Copy the file from the original download."
            )
        for identity in self._identities[split]:
            for camera in CAMERA_MODALITY:
                rows = cells[camera - 1].ravel()
                if rows.dtype != object:
                    raise VIReIDError(
                        f"{self.name}: rand_perm_cam in {path} has no cell for each identity in camera {camera}. Copy "
                        "the file from the original download."
                    )
                if not 1 <= identity <= len(rows) or not np.asarray(rows[identity - 1]).size:
                    continue
                order = np.atleast_2d(to_whole(self.name, path, rows[identity - 1]))
                if len(order) < GALLERY_DRAWS:
                    raise VIReIDError(
                        f"{self.name}: rand_perm_cam in {path} has {len(order)} rows for identity {identity} in "
                        f"camera {camera} where {GALLERY_DRAWS} trials belong. Copy the file from the original "
                        "download."
                    )
                if order.ndim > 2 or not np.isin(order, order[0]).all():
                    raise VIReIDError(
                        f"{self.name}: rand_perm_cam in {path} has rows of other images than the first for identity "
                        f"{identity} in camera {camera}. Copy the file from the original download."
                    )
                orders[identity, camera] = order
        return orders


def _take_official_gallery(
    positions: dict[str, int], orders: dict[tuple[int, int], NDArray[np.int64]], mode: str, shots: int, row: int
) -> NDArray[np.int64]:
    """Take the first ``shots`` image numbers of one row of each identity's and gallery camera's matrix."""
    return np.array(
        [
            positions[_make_path(camera, identity, number)]
            for (identity, camera), order in orders.items()
            if camera in GALLERY_CAMERAS[mode]
            for number in order[row, :shots].tolist()
        ],
        dtype=np.int64,
    )


def _list_ordered(orders: dict[tuple[int, int], NDArray[np.int64]]) -> list[Sample]:
    """List the images whose numbers the matrices of :meth:`SYSUMM01._read_orders` hold."""
    return [
        Sample(_make_path(camera, identity, number), identity, CAMERA_MODALITY[camera], camera)
        for (identity, camera), order in orders.items()
        for number in np.sort(order[0]).tolist()
    ]


def _make_path(camera: int, identity: int, number: int) -> str:
    """Return an image's path as the dataset writes it."""
    return f"cam{camera}/{identity:04d}/{number:04d}.jpg"
