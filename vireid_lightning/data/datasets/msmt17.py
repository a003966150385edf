"""MSMT17 (Wei et al., CVPR 2018), version 1: visible images only, a source for learning without infrared labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from vireid_lightning.data.datasets.base import PublishedSplit, Split
from vireid_lightning.data.datasets.folders import require_files
from vireid_lightning.data.datasets.index_files import read_rows, to_number
from vireid_lightning.data.datasets.visible_only import VisibleOnlyDataset
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import VISIBLE, Sample

#: Lists of each split, and the folder that their paths are relative to. The lists train and val share identities and
#: together hold the 32,621 training images.
TRAIN_LISTS, TRAIN_FOLDER = ("list_train.txt", "list_val.txt"), "train"
TEST_LISTS, TEST_FOLDER = ("list_query.txt", "list_gallery.txt"), "test"


class MSMT17(VisibleOnlyDataset):
    """MSMT17 in the layout of its version 1: ``root/{train,test}/{identity:04d}/*.jpg`` and ``root/list_*.txt``.

    The test lists count identities from 0 again; here they follow the training identities, so that no number stands
    for two people. The test lists and images may be absent, as a source needs only the training images.

    Args:
        root: The dataset's folder.

    Raises:
        VIReIDError: The root or a training list is missing or broken.
    """

    name: ClassVar[str] = "MSMT17"
    # The paper's counts. The test images are 11,659 queries and 82,161 gallery images.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": PublishedSplit(1041, {(VISIBLE, None): 32621}),
        "test": PublishedSplit(3060, {(VISIBLE, None): 93820}),
    }

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._train = self._read(TRAIN_LISTS, TRAIN_FOLDER, first=0)
        lists = tuple(name for name in TEST_LISTS if (self.root / name).exists())
        self._test = self._read(lists, TEST_FOLDER, first=max(sample.identity for sample in self._train) + 1)

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split, from the lists alone."""
        return sorted({sample.identity for sample in (self._train if split == "train" else self._test)})

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path; ``val`` is the test split.

        Raises:
            VIReIDError: Images that the lists name are missing.
        """
        listed = self._train if split == "train" else self._test
        names = " and ".join(TRAIN_LISTS if split == "train" else TEST_LISTS)
        require_files(self.name, self.root, (sample.path for sample in listed), names)
        return list(listed)

    def _read(self, names: tuple[str, ...], folder: str, first: int) -> list[Sample]:
        """Read lists of ``path identity`` lines, sorted by path; the camera is the third field of the file name."""
        samples = []
        for name in names:
            where = str(self.root / name)
            for path, identity in read_rows(self.name, self.root / name, columns=2):
                fields = PurePosixPath(path).name.split("_")
                if len(fields) < 4:
                    raise VIReIDError(
                        f"{self.name}: {where} lists {path}, which is not named like "
                        "0000_000_01_0303morning_0015_0.jpg (the third field is the camera). Copy the file from the "
                        "original download."
                    )
                camera = to_number(self.name, fields[2], "a camera's number", f"the file name {path} in {where}")
                number = first + to_number(self.name, identity, "an identity's number", where)
                samples.append(Sample(f"{folder}/{path}", number, VISIBLE, camera))
        return sorted(samples, key=lambda sample: sample.path)
