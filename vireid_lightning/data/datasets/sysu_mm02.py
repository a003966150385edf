"""SYSU-MM02 (Wu, Lin, Zheng; TCSVT 2024): detections on untrimmed video, without training identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from vireid_lightning.data.datasets.base import PublishedSplit, ReIDDataset, Split
from vireid_lightning.data.datasets.folders import require_files
from vireid_lightning.data.datasets.index_files import read_rows, to_number
from vireid_lightning.data.datasets.protocol_building import build_all_against_all
from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, MODALITIES, UNKNOWN, VISIBLE, Sample

#: Modality of each camera.
CAMERA_MODALITY = {1: VISIBLE, 2: INFRARED, 3: INFRARED}

_TEST_LISTS = {"test_rgb.txt": VISIBLE, "test_ir.txt": INFRARED}


class SYSUMM02(ReIDDataset):
    """SYSU-MM02 in its own layout: ``root/train.txt``, ``root/test_rgb.txt``, ``root/test_ir.txt`` and their images.

    Training images come from detections on untrimmed video and have no true identities: the identity column of
    ``train.txt`` is never looked at, and every training sample's identity is -1. The dataset has no validation
    identities, so ``val`` is the test split, as in the paper.

    Args:
        root: The dataset's folder.

    Raises:
        VIReIDError: The root or an index file is missing or broken.
    """

    name: ClassVar[str] = "SYSU-MM02"
    default_protocol: str = "visible-to-infrared"
    labelled: bool = False
    # The paper's counts.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": PublishedSplit(None, {(VISIBLE, 1): 7440, (INFRARED, None): 13614}),
        "test": PublishedSplit(118, {(VISIBLE, 1): 2360, (INFRARED, None): 2360}),
    }

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._train = self._read("train.txt", labelled=False)
        self._test: list[Sample] = []
        for name, modality in _TEST_LISTS.items():
            listed = self._read(name, labelled=True)
            wrong = [sample for sample in listed if sample.modality != modality]
            if wrong:
                raise VIReIDError(
                    f"{self.name}: {self.root / name} lists {wrong[0].path} with camera {wrong[0].camera}, which is "
                    f"not a camera of {MODALITIES[modality]} images. Copy the file from the original download."
                )
            self._test += listed
        self._test.sort(key=lambda sample: sample.path)

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers of a split: none in training, where they are unknown."""
        return [] if split == "train" else sorted({sample.identity for sample in self._test})

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path.

        Raises:
            VIReIDError: Images that the index files list are missing.
        """
        listed = self._train if split == "train" else self._test
        names = "train.txt" if split == "train" else " and ".join(_TEST_LISTS)
        require_files(self.name, self.root, (sample.path for sample in listed), names)
        return list(listed)

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return both directions, all images against all; the CMC curve counts identities.

        Raises:
            VIReIDError: Images of the split are not among ``samples``, or the split is ``train``.
        """
        if split == "train":
            raise VIReIDError(f"{self.name}: the training images have no identities to search for. Use split='test'.")
        return build_all_against_all(self.name, samples, self._test, cmc="identity")

    def _read(self, name: str, *, labelled: bool) -> list[Sample]:
        """Read a list of ``path identity camera`` lines, sorted by path."""
        where = str(self.root / name)
        samples = []
        for path, identity, camera_word in read_rows(self.name, self.root / name, columns=3):
            camera = to_number(self.name, camera_word, "a camera's number", where)
            if camera not in CAMERA_MODALITY:
                raise VIReIDError(
                    f"{self.name}: {where} gives {path} camera {camera}, but the cameras are 1 (visible), 2 and 3 "
                    "(infrared). Copy the file from the original download."
                )
            number = to_number(self.name, identity, "an identity's number", where) if labelled else UNKNOWN
            samples.append(Sample(path, number, CAMERA_MODALITY[camera], camera))
        return sorted(samples, key=lambda sample: sample.path)
