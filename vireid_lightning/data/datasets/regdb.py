"""RegDB (Nguyen et al., Sensors 2017): pairs of a visible and a thermal camera, ten random splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from vireid_lightning.data.datasets.base import PublishedSplit, ReIDDataset, Split
from vireid_lightning.data.datasets.folders import require_files
from vireid_lightning.data.datasets.index_files import read_rows, require_disjoint, to_number
from vireid_lightning.data.datasets.protocol_building import build_all_against_all
from vireid_lightning.errors import VIReIDError
from vireid_lightning.protocols import Protocol
from vireid_lightning.types import INFRARED, VISIBLE, Sample

#: Number of random splits of the identities that the dataset comes with; a trial is one of them.
RANDOM_SPLITS = 10

#: The word for each modality in the names of the index files.
_WORDS = {VISIBLE: "visible", INFRARED: "thermal"}

#: Camera number of each modality; the layout has none, and each modality has one camera.
_CAMERAS = {VISIBLE: 1, INFRARED: 2}


class RegDB(ReIDDataset):
    """RegDB in its own layout, ``root/{Visible,Thermal}/{identity}/*.bmp`` and ``root/idx/``.

    A model belongs to the trial that it was trained on: the test identities of one trial are training identities of
    others. The dataset has no validation identities, so ``val`` is the test split, as in the papers; a checkpoint
    chosen by its validation score is therefore chosen on the test identities.

    Args:
        root: The dataset's folder.
        trial: Which of the ten random 206/206 splits, from 1.

    Raises:
        VIReIDError: The root or an index file is missing or broken, or there is no such trial.
    """

    name: ClassVar[str] = "RegDB"
    distance: ClassVar[Literal["cosine", "euclidean"]] = "euclidean"
    default_protocol: str = "visible-to-infrared"
    # Counted from the index files, and the same in each of the ten splits.
    published: ClassVar[Mapping[Split, PublishedSplit]] = {
        "train": PublishedSplit(206, {(VISIBLE, 1): 2060, (INFRARED, 2): 2060}),
        "test": PublishedSplit(206, {(VISIBLE, 1): 2060, (INFRARED, 2): 2060}),
    }

    def __init__(self, root: str | Path, *, trial: int = 1) -> None:
        super().__init__(root)
        if isinstance(trial, bool) or not isinstance(trial, int) or not 1 <= trial <= RANDOM_SPLITS:
            raise VIReIDError(
                f"{self.name}: there is no trial {trial!r}; give a whole number from 1 to {RANDOM_SPLITS}."
            )
        self.trial = trial
        self._listed = {split: self._read_split(split) for split in ("train", "test")}
        require_disjoint(self.name, self.identities("train"), self.identities("test"), "test", self.root / "idx")

    def identities(self, split: Split) -> list[int]:
        """Return the sorted identity numbers (the folders' names) of a split, from the ``idx`` files alone."""
        return sorted({sample.identity for sample in self._listed[_name_part(split)]})

    def samples(self, split: Split) -> list[Sample]:
        """Return every image of a split, sorted by path.

        Raises:
            VIReIDError: Images that the index files list are missing.
        """
        part = _name_part(split)
        listed = self._listed[part]
        files = f"idx/{part}_visible_{self.trial}.txt and idx/{part}_thermal_{self.trial}.txt"
        require_files(self.name, self.root, (sample.path for sample in listed), files)
        return list(listed)

    def protocols(self, samples: Sequence[Sample], split: Split = "test") -> list[Protocol]:
        """Return both directions, all images against all; the CMC curve counts images.

        Raises:
            VIReIDError: Images of the split are not among ``samples``.
        """
        return build_all_against_all(
            self.name, samples, self._listed[_name_part(split)], cmc="image", trial=str(self.trial)
        )

    def _read_split(self, part: str) -> list[Sample]:
        """Read the two index files of ``train`` or ``test``; the identity is the folder's name.

        The label in the files counts from 0 within the split, so that train and test would share numbers.
        """
        samples: dict[str, Sample] = {}
        labels: dict[str, int] = {}
        for modality, word in _WORDS.items():
            index_file = self.root / "idx" / f"{part}_{word}_{self.trial}.txt"
            for path, label in read_rows(self.name, index_file, columns=2):
                identity = to_number(
                    self.name, PurePosixPath(path).parent.name, "an identity's folder", str(index_file)
                )
                if labels.setdefault(label, identity) != identity:
                    raise VIReIDError(
                        f"{self.name}: label {label} in {index_file} belongs to the folders {labels[label]} and "
                        f"{identity}. Copy the index files from the original download."
                    )
                if path in samples:
                    raise VIReIDError(f"{self.name}: {index_file} lists {path} twice. Remove one of the lines.")
                samples[path] = Sample(path, identity, modality, _CAMERAS[modality])
        return [samples[path] for path in sorted(samples)]


def _name_part(split: Split) -> str:
    """Return which index files hold a split: there are no validation identities."""
    return "train" if split == "train" else "test"
