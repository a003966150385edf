"""LLCM (Zhang and Wang, CVPR 2023): low-light cross-modality, nine cameras, visible and near-infrared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from vireid_lightning.data.datasets.base import PublishedSplit, ReIDDataset, Split
from vireid_lightning.data.datasets.folders import list_identity_folders, require_files, require_identities
from vireid_lightning.data.datasets.gallery_draws import GALLERY_DRAWS, draw_one_per_folder
from vireid_lightning.data.datasets.index_files import read_numbers, read_rows, require_disjoint, to_number
from vireid_lightning.data.datasets.protocol_building import (
    DIRECTIONS,
    SampleColumns,
    build_direction,
    find_expected,
    index_by_path,
)
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, UNKNOWN, VISIBLE, Sample

#: Training list of each modality.
TRAIN_LISTS = {VISIBLE: "idx/train_vis.txt", INFRARED: "idx/train_nir.txt"}

#: Test folder of each modality, and its cameras in the order in which galleries are drawn from; camera 3 takes no
#: near-infrared test images.
TEST_FOLDERS = {VISIBLE: "test_vis", INFRARED: "test_nir"}
TEST_CAMERAS = {VISIBLE: (1, 2, 3, 4, 5, 6, 7, 8, 9), INFRARED: (1, 2, 4, 5, 6, 7, 8, 9)}


class LLCM(ReIDDataset):
    """LLCM in its own layout: ``root/idx/``, the training images it lists, ``root/test_vis`` and ``root/test_nir``.

    The dataset has no validation identities, so ``val`` is the test split, as in the papers; a checkpoint chosen by
    its validation score is therefore chosen on the test identities.

    Args:
        root: The dataset's folder.

    Raises:
        VIReIDError: The root or an index file is missing or broken.
    """

    name: ClassVar[str] = "LLCM"
    default_protocol: str = "infrared-to-visible"
    # The paper's counts. Of the counts by modality only their sum, 46,767, was found in a source.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": PublishedSplit(713, {(VISIBLE, None): 16946, (INFRARED, None): 13975}),
        "test": PublishedSplit(351, {(VISIBLE, None): 8680, (INFRARED, None): 7166}),
    }

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._train = self._read_train()
        self._test_identities = read_numbers(self.name, self.root / "idx" / "test_id.txt")
        require_disjoint(self.name, self.identities("train"), self._test_identities, "test", self.root / "idx")

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers (the folders' names) of a split, from the ``idx`` files alone."""
        if split == "train":
            return sorted({sample.identity for sample in self._train})
        return list(self._test_identities)

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path.

        Raises:
            VIReIDError: Training images that the lists name are missing, or a test identity has no image.
        """
        if split == "train":
            require_files(self.name, self.root, (s.path for s in self._train), " and ".join(TRAIN_LISTS.values()))
            return list(self._train)
        samples = self._list_test()
        listed, folders = "identities of idx/test_id.txt", "test_vis or test_nir"
        require_identities(self.name, self.root, self._test_identities, samples, listed, folders)
        return samples

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return both directions: all images of one modality search ten seeded galleries of the other.

        A gallery holds one image of each identity and camera, drawn as in the authors' code. Gallery images of the
        query's own identity and camera are removed; the CMC curve counts identities.

        Args:
            samples: All images of the split, from :meth:`samples` or from saved embeddings. Their completeness can
                be checked only where the test folders exist, because no index file lists the test images.
            split: ``test`` or ``val``, which are the same.

        Raises:
            VIReIDError: The samples are not the images of the test folders, or no query has a true match in a gallery.
        """
        identities = set(self.identities(split))
        expected = self._train if split == "train" else self._list_test()
        if not expected:  # the test folders are not here
            expected = [sample for sample in samples if sample.identity in identities]
        columns = SampleColumns.of(samples)
        find_expected(self.name, samples, index_by_path(self.name, samples), expected)
        positions = {modality: np.flatnonzero(columns.modality == modality) for modality in TEST_FOLDERS}
        protocols = []
        for query in DIRECTIONS:
            gallery = positions[1 - query].tolist()
            cameras = TEST_CAMERAS[1 - query]
            draws = [draw_one_per_folder(samples, gallery, cameras, seed) for seed in range(GALLERY_DRAWS)]
            trials = [(positions[query], drawn) for drawn in draws]
            protocols.append(
                build_direction(
                    self.name, columns, query, trials, removal="same-camera", cmc="identity", sampling="seeded"
                )
            )
        return protocols

    def _read_train(self) -> list[Sample]:
        """Read the training lists; an identity is its folder's name, since labels count from 0 in the split."""
        samples = []
        for modality, name in TRAIN_LISTS.items():
            for path, _ in read_rows(self.name, self.root / name, columns=2):
                folder = PurePosixPath(path).parent.name
                identity = to_number(self.name, folder, "an identity's folder", str(self.root / name))
                camera = re.search(r"_c(\d+)_", PurePosixPath(path).name)
                samples.append(Sample(path, identity, modality, int(camera.group(1)) if camera else UNKNOWN))
        return sorted(samples, key=lambda sample: sample.path)

    def _list_test(self) -> list[Sample]:
        """List the test folders' images of the test identities, sorted by path."""
        samples = []
        for modality, folder in TEST_FOLDERS.items():
            for camera in TEST_CAMERAS[modality]:
                files = list_identity_folders(self.root, f"{folder}/cam{camera}", self._test_identities)
                samples += [Sample(path, identity, modality, camera) for path, identity in files]
        return sorted(samples, key=lambda sample: sample.path)
